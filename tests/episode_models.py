"""What tests of episodes share: a tokenizer whose texts have many encodings, an engine that notes what it was fed."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rayzero.rollout_workers.completions import text_of
from rayzero.services.schema.episodes import Branch, EpisodeRecord, EpisodeRequest
from rayzero.services.schema.messages import Completion, FinishReason, Sampling, VersionSpan

SPECIAL = ["<|pad|>", "<|unknown|>", "<|im_start|>", "<|im_end|>"]
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789 \n<>/_\"'{}:,.?!|[]"
PAIRS = ["ab", "bc", "abc", "he", "ll", "hell", "to", "ol", "12", "23", "  ", "ca", "cal", "call", "_call"]

CHATML = (
    "{%- if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{%- for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content and (loop.last or message.role != 'assistant' or keep_thinking) %}"
    "<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{- message.content }}"
    "{%- for call in message.tool_calls or [] %}\n<tool_call>\n"
    '{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen's: tools, calls, and thoughts that are left out of all turns but the last."""


def pair_tokenizer(template: str = CHATML) -> PreTrainedTokenizerFast:
    """Characters and pairs of them: what is sampled token by token is hardly ever what its text encodes to."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *CHARACTERS, *PAIRS])}
    merges = []
    for token in PAIRS:
        left = max((token[:cut] for cut in range(1, len(token)) if _known(token, cut, vocabulary)), key=len)
        merges.append((left, token[len(left) :]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<|unknown|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[^\n]+"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def _known(token: str, cut: int, vocabulary: dict[str, int]) -> bool:
    return token[:cut] in vocabulary and token[cut:] in vocabulary


@dataclass(frozen=True)
class Feed:
    """One call of the engine: what it was given and what it gave."""

    fed: tuple[int, ...]
    gave: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass
class NotingEngine:
    """Samples what `says` writes, token by token at random, and keeps a note of everything."""

    tokenizer: Any
    chance: random.Random
    feeds: list[Feed] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    version: int = 0
    cut: float = 0.0
    """Share of turns that end before their own end."""
    script: list[str] = field(default_factory=list)
    """What is said next; at random when it is empty."""
    delays: bool = False
    gate: asyncio.Event | None = None

    async def __call__(self, request: EpisodeRequest, tokens: NDArray[np.int32], sampling: Sampling) -> Completion:
        self.samplings.append(sampling)
        text = self.script.pop(0) if self.script else self._something()
        for _ in range(self.chance.randrange(6) if self.delays else 0):
            await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        gave = [*self._spelled(text), self.tokenizer.eos_token_id]
        reason: FinishReason = "stop"
        if len(gave) > sampling.max_tokens or (self.chance.random() < self.cut and len(gave) > 1):
            gave = gave[: min(sampling.max_tokens, max(1, len(gave) - 1))]
            reason = "length"
        logprobs = np.asarray([-self.chance.random() for _ in gave], dtype=np.float32)
        ids = np.asarray(gave, dtype=np.int32)
        half = len(gave) // 2
        spans = [VersionSpan(start=0, end=len(gave), policy_version=self.version)]
        if half and self.chance.random() < 0.2:  # new weights came within the turn
            self.version += 1
            spans = [
                VersionSpan(start=0, end=half, policy_version=self.version - 1),
                VersionSpan(start=half, end=len(gave), policy_version=self.version),
            ]
        self.feeds.append(Feed(tuple(tokens.tolist()), tuple(gave), tuple(logprobs.tolist())))
        return Completion(
            text=text_of(ids, self.tokenizer, reason),
            token_ids=ids,
            rollout_logprobs=logprobs,
            version_spans=tuple(spans),
            finish_reason=reason,
        )

    def _spelled(self, text: str) -> list[int]:
        """One of a text's encodings, at random."""
        tokens, at = [], 0
        vocabulary = self.tokenizer.get_vocab()
        while at < len(text):
            fitting = [text[at : at + size] for size in range(1, 6) if text[at : at + size] in vocabulary]
            token = self.chance.choice(fitting)
            tokens.append(vocabulary[token])
            at += len(token)
        return tokens

    def _something(self) -> str:
        words = " ".join(self.chance.choice(["abc", "hell", "tool", "1223", "cab"]) for _ in range(3))
        made = json.dumps({"name": "look", "arguments": {"at": self.chance.choice("abc")}})
        call = f"<tool_call>\n{made}\n</tool_call>"
        broken = "<tool_call>\n{'name': look}\n</tool_call>"
        return self.chance.choice([words, words, f"{words}\n{call}", call, f"{call}\n{call}", broken, ""])


def unfolded(record: EpisodeRecord) -> list[Feed]:
    """Every sampled turn of a record with all tokens before it, main completion first."""
    completion = record.completion
    branches: tuple[Branch, ...] = completion.branches
    whole = [np.concatenate([record.prompt_token_ids, completion.token_ids])]
    parts = [(len(record.prompt_token_ids), completion)]
    for branch in branches:
        assert 1 <= branch.fork <= len(whole[branch.parent]) and branch.parent < len(whole)
        whole.append(np.concatenate([whole[branch.parent][: branch.fork], branch.completion.token_ids]))
        parts.append((branch.fork, branch.completion))
    feeds = []
    for tokens, (fork, part) in zip(whole, parts, strict=True):
        for turn in part.turns:
            start, end = fork + turn.start, fork + turn.end
            logprobs = part.rollout_logprobs[turn.start : turn.end]
            feeds.append(
                Feed(tuple(tokens[:start].tolist()), tuple(tokens[start:end].tolist()), tuple(logprobs.tolist()))
            )
    return feeds


def check_shape(part: Completion) -> None:
    """What holds of every completion of an episode."""
    is_sampled = np.ones(part.num_tokens, dtype=bool) if part.is_sampled is None else part.is_sampled
    in_turns = np.zeros(part.num_tokens, dtype=bool)
    for turn in part.turns:
        assert not in_turns[turn.start : turn.end].any()
        in_turns[turn.start : turn.end] = True
    assert (in_turns == is_sampled).all(), "turns cover the sampled tokens"
    assert (np.isnan(part.rollout_logprobs) == ~is_sampled).all()
    assert part.version_spans[0].start == 0 and part.version_spans[-1].end == part.num_tokens
    for before, after in zip(part.version_spans, part.version_spans[1:], strict=False):
        assert before.end == after.start and before.policy_version != after.policy_version
