"""A reward model: a Hugging Face sequence classifier with one logit, as a reward.

It computes on one thread of the reward worker; the event loop stays free. What a policy finds in its blind spots counts
as good: watch its score against something that can be verified.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rayzero.rewards.base import THINK_CLOSE, Case, Context, Score, scored
from rayzero.services.schema.config.reward_components import RewardModelComponent
from rayzero.services.schema.devices import Device
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.messages import ChatMessage

CENTRE_FILE = "reward_model.json"


class RewardModelReward:
    """sigmoid(logit − centre); the centre is where the model was trained to be undecided."""

    def __init__(self, settings: RewardModelComponent, device: Device = "cpu") -> None:
        """`device`: `cuda` only where this worker has reserved a GPU."""
        self.settings, self._device = settings, device
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reward-model")
        self._classifier: Classifier | None = None

    async def start(self) -> None:
        """Load the model. Raises ActorStartError where there is none, or it has more than one label."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def score(self, cases: Sequence[Case], context: Context) -> list[Score]:
        """One score a case; equal texts are read once."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._score, cases)

    async def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        if self._classifier is not None:
            return
        try:
            self._classifier = Classifier(Path(self.settings.path), self._device)
        except (OSError, ValueError) as error:
            raise ActorStartError(f"reward model {self.settings.path} cannot be loaded: {error}") from None

    def _score(self, cases: Sequence[Case]) -> list[Score]:
        self._load()
        assert self._classifier is not None
        classifier = self._classifier
        texts = [classifier.render(case.prompt.messages, read_part(case, self.settings.part)) for case in cases]
        distinct = list(dict.fromkeys(texts))
        logits = dict(zip(distinct, classifier.logits(distinct, self.settings.tokens_per_batch), strict=True))
        return [self._scored(logits[text]) for text in texts]

    def _scored(self, logit: float) -> Score:
        assert self._classifier is not None
        centred = logit - self._classifier.centre
        # Past 700 the exponential overflows; the sigmoid is 0 long before.
        value = 1.0 / (1.0 + math.exp(min(-centred, 700.0)))
        return scored(value, full=self.settings.full_score, reason=f"the reward model says {centred:+.2f}")


class Classifier:
    """A one-logit classifier with its tokenizer, in fp32, for scoring and for training."""

    def __init__(self, path: Path, device: Device = "cpu") -> None:
        """Load a directory in Hugging Face format onto `device`; a body without a head gets a new one.

        Raises:
            ValueError, OSError: there is no such model, or torch cannot use the GPU.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"it is to compute on a GPU, and torch {torch.__version__} here cannot use one")
        if not (path / "config.json").is_file():
            raise ValueError(f"{path} holds no config.json")
        self.device = torch.device(device)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=1, dtype=torch.float32, local_files_only=True
        )
        self.pad = self.tokenizer.pad_token_id
        if self.pad is None:
            self.pad = self.tokenizer.eos_token_id
        self.model.config.pad_token_id = self.pad
        self.model.to(self.device).eval()
        self.max_tokens = int(self.model.config.max_position_embeddings)
        file = path / CENTRE_FILE
        self.centre = float(json.loads(file.read_text(encoding="utf-8"))["centre"]) if file.is_file() else 0.0

    def render(self, messages: Sequence[ChatMessage], answer: str) -> str:
        """A dialogue as the model reads it: by the tokenizer's chat template, else as plain text."""
        turns = [*messages, ChatMessage(role="assistant", content=answer)]
        if self.tokenizer.chat_template:
            conversation = [{"role": turn.role, "content": turn.content} for turn in turns]
            return str(self.tokenizer.apply_chat_template(conversation, tokenize=False))
        return "\n".join(turn.content for turn in turns)

    def encode(self, text: str) -> list[int]:
        """Tokens with the end of the text; of a text that is too long, its end."""
        token_ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        end = self.tokenizer.eos_token_id
        return [*token_ids, *([] if token_ids[-1:] == [end] else [end])][-self.max_tokens :]

    @torch.no_grad()
    def logits(self, texts: Sequence[str], tokens_per_batch: int) -> list[float]:
        """[len(texts)] in order. Texts of like length share a pass, so that little is padding."""
        rows = [self.encode(text) for text in texts]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        found = [0.0] * len(rows)
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and len(rows[order[end]]) * (end + 1 - start) <= tokens_per_batch:
                end += 1
            batch = order[start:end]
            for index, logit in zip(batch, self.forward([rows[each] for each in batch]).tolist(), strict=True):
                found[index] = logit
            start = end
        return found

    def forward(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """[len(rows)] logits, fp32, differentiable."""
        width = max(len(row) for row in rows)
        token_ids = torch.tensor([[*row, *([self.pad] * (width - len(row)))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        logits: Tensor = self.model(input_ids=token_ids, attention_mask=mask, use_cache=False).logits[:, 0].float()
        return logits

    def save(self, directory: Path, centre: float) -> None:
        """Write it in Hugging Face format, with the centre."""
        self.model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        (directory / CENTRE_FILE).write_text(json.dumps({"centre": centre}) + "\n", encoding="utf-8")


def read_part(case: Case, part: str) -> str:
    """What the model reads of a completion. A thought that never ends leaves no answer."""
    if part == "whole":
        return case.text
    _, closed, answer = case.text.rpartition(THINK_CLOSE)
    if not closed and ("<think>" in case.text or case.prefilled):
        return ""
    return answer
