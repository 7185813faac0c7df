"""Sessions against an engine that notes what it was fed: the record is what was fed and returned, byte for byte."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from rayzero.rollout_workers.episodes.rendering import DialogueRenderer
from rayzero.rollout_workers.episodes.session import EpisodeSession, SessionParts
from rayzero.rollout_workers.episodes.tool_calls import CallNumbers, parser_of
from rayzero.rollout_workers.templates import render
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, ToolCall
from rayzero.services.schema.errors import EpisodeClosed, PromptRefused
from rayzero.services.schema.messages import ChatMessage, Prompt, Sampling
from tests.episode_models import Feed, NotingEngine, check_shape, pair_tokenizer, unfolded

TOOL = {"type": "function", "function": {"name": "look", "description": "looks", "parameters": {"type": "object"}}}
QUESTION = ChatMessage(role="user", content="hello, look at abc")
OTHER = ChatMessage(role="system", content="call abc")

tokenizer = cache(pair_tokenizer)


def user(content: str) -> ChatMessage:
    return ChatMessage(role="user", content=content)


def tool(content: str, call: ToolCall | None = None) -> ChatMessage:
    return ChatMessage(role="tool", content=content, tool_call_id="" if call is None else call.call_id)


def session_of(
    engine: NotingEngine,
    *,
    turn_tokens: int = 200,
    episode_tokens: int | None = None,
    window: int = 4000,
    tools: tuple[Any, ...] = (TOOL,),
    template: str = "chat",
) -> EpisodeSession:
    request = EpisodeRequest(
        group_id=1,
        index=0,
        prompt=Prompt(prompt_id="p", messages=(QUESTION,), answer=None),
        sampling=Sampling(num_completions=1, max_tokens=turn_tokens, seed=5),
        tools=tools,
        max_tokens=episode_tokens,
    )
    text, prompt = render(
        request.prompt, RolloutSettings.model_validate({"prompt_template": template}), engine.tokenizer, tools
    )
    numbers = CallNumbers()
    parts = SessionParts(
        renderer=DialogueRenderer(engine.tokenizer, template, ["<|im_end|>"]),
        parser=lambda given: parser_of("auto", engine.tokenizer, given, numbers),
        tokenizer=engine.tokenizer,
        sample=engine,
        max_model_tokens=window,
    )
    return EpisodeSession(request, text, prompt, 0, parts)


def engine_of(*script: str, seed: int = 0) -> NotingEngine:
    return NotingEngine(tokenizer(), random.Random(seed), script=list(script))


def check(record: EpisodeRecord, engine: NotingEngine) -> None:
    """All that the engine returned is in the record once, after exactly what it was fed."""
    assert Counter(unfolded(record)) == Counter(engine.feeds)
    for part in (record.completion, *(branch.completion for branch in record.completion.branches)):
        check_shape(part)


def reasons(record: EpisodeRecord) -> list[str]:
    return [branch.reason for branch in record.completion.branches]


async def test_a_conversation_with_tools_is_one_completion_without_a_fork() -> None:
    engine = engine_of('<tool_call>\n{"name": "look", "arguments": {"at": "abc"}}\n</tool_call>', "hello 12")
    session = session_of(engine)
    first = await session.turn(())
    (call,) = first.message.tool_calls
    assert (call.name, call.arguments, first.message.content, first.end) == ("look", {"at": "abc"}, "", None)
    second = await session.turn((first.message, tool("it is 12", call)))
    record = session.close()
    check(record, engine)
    completion = record.completion
    assert second.message.content == completion.text == "hello 12"
    assert not completion.branches and len(completion.turns) == 2 and completion.finish_reason == "stop"
    assert completion.turns[0].tool_calls == (call,)
    between = completion.token_ids[completion.turns[0].end : completion.turns[1].start]
    assert tokenizer().decode(between) == "\n<|im_start|>tool\nit is 12<|im_end|>\n<|im_start|>assistant\n"
    assert engine.feeds[1].fed[: len(record.prompt_token_ids)] == tuple(record.prompt_token_ids.tolist())
    assert [each.seed for each in engine.samplings] == [each.seed for each in engine.samplings] != [None, None]
    assert engine.samplings[0].seed != engine.samplings[1].seed


async def test_one_turn_is_recorded_as_any_completion_is() -> None:
    engine = engine_of("hello")
    session = session_of(engine)
    await session.turn(())
    completion = session.close().completion
    assert completion.is_sampled is None and len(completion.turns) == 1


async def test_a_history_that_was_rewritten_is_a_branch() -> None:
    engine = engine_of("abc", "cab", "hell", "12")
    session = session_of(engine)
    first = (await session.turn(())).message
    second = (await session.turn((first, user("and?")))).message
    await session.turn((replace(first, content="abd"), user("and?")))
    await session.turn((first, user("or?"), replace(second, content="cad"), user("so?")))
    record = session.close()
    check(record, engine)
    assert reasons(record) == ["rewritten", "rewritten"]
    assert record.completion.text == "12", "what was said last, on whatever branch"


async def test_the_same_history_asked_twice_branches_after_what_was_observed() -> None:
    engine = engine_of("abc", "cab", "cab", "cab")
    session = session_of(engine)
    first = (await session.turn(())).message
    said = [(await session.turn((first, user("and?")))).message for _ in range(2)]
    assert said[0] == said[1]
    await session.turn((first, user("and?"), said[0], user("so?")))
    record = session.close()
    check(record, engine)
    assert reasons(record) == ["parallel"]
    (branch,) = record.completion.branches
    assert branch.fork == len(record.prompt_token_ids) + record.completion.turns[1].start
    turns = [len(part.turns) for part in (record.completion, branch.completion)]
    assert sorted(turns) == [2, 2], "either of two equal turns is what it follows"


async def test_a_turn_that_was_cut_off_ends_its_branch() -> None:
    engine = engine_of("abcabcabcabc", "hell")
    session = session_of(engine, turn_tokens=3)
    first = await session.turn(())
    assert (first.finish_reason, first.end) == ("length", EpisodeEnd.MAX_TOKENS)
    await session.turn((first.message, user("go on")))
    record = session.close()
    check(record, engine)
    assert reasons(record) == ["cut_off"]
    assert record.completion.end is None, "it went on from before, and that turn came to its own end"


async def test_budgets_end_an_episode_under_their_names() -> None:
    engine = engine_of("abc", "abc" * 12)
    session = session_of(engine, episode_tokens=40)
    first = await session.turn(())
    last = await session.turn((first.message, user("0123456789")))
    assert (last.end, last.finish_reason) == (EpisodeEnd.MAX_TOKENS, "length")
    none = await session.turn((first.message, user("0123456789" * 9)))
    assert (none.end, none.num_tokens, none.message.content) == (EpisodeEnd.MAX_TOKENS, 0, "")
    record = session.close()
    check(record, engine)
    assert record.completion.num_tokens <= 40

    engine = engine_of("abc")
    session = session_of(engine, window=room_for(40))
    first = await session.turn(())
    none = await session.turn((first.message, user("0123456789" * 9)))
    assert (none.end, len(engine.feeds)) == (EpisodeEnd.CONTEXT, 1)


def room_for(num_tokens: int) -> int:
    """A window that leaves so many after the prompt."""
    return len(session_of(engine_of())._tree.prompt) + num_tokens


async def test_what_the_window_cuts_off_ends_as_context() -> None:
    engine = engine_of("abc" * 50)
    session = session_of(engine, window=room_for(20))
    assert (await session.turn(())).end is EpisodeEnd.CONTEXT
    check(session.close(), engine)


async def test_an_aborted_episode_takes_no_turn_more() -> None:
    engine = engine_of("abc")
    session = session_of(engine)
    first = await session.turn(())
    session.abort()
    turn = await session.turn((first.message, user("and?")))
    assert (turn.end, len(engine.feeds)) == (EpisodeEnd.ABORTED, 1)
    assert session.close().completion.end is EpisodeEnd.ABORTED


async def test_a_call_that_is_late_records_nothing() -> None:
    engine = engine_of("abc", "cab")
    session = session_of(engine)
    first = (await session.turn(())).message
    engine.gate = asyncio.Event()
    late = asyncio.create_task(session.turn((first, user("and?"))))
    await asyncio.sleep(0.01)
    record = session.close()
    engine.gate.set()
    with pytest.raises(EpisodeClosed):
        await late
    with pytest.raises(EpisodeClosed):
        await session.turn(())
    assert len(record.completion.turns) == 1
    check(record, engine)


async def test_a_prompt_of_the_agents_own_forks_within_the_episodes() -> None:
    engine = engine_of("abc", "cab", "hell")
    session = session_of(engine)
    first = await session.answer((OTHER, QUESTION), (), None)
    await session.answer((OTHER, QUESTION, first.turn.message, user("and?")), (), None)
    await session.answer((QUESTION,), (TOOL,), None)
    record = session.close()
    check(record, engine)
    assert reasons(record) == ["prompt"]
    assert record.completion.branches[0].fork < len(record.prompt_token_ids)
    assert len(record.completion.branches[0].completion.turns) == 2
    assert len(record.completion.turns) == 1, "the episode's own prompt and tools are its main completion"


async def test_a_context_given_as_tokens_is_taken_as_it_is_and_drift_forks() -> None:
    engine = engine_of("hello call abc", "12", "cab")
    engine.chance = random.Random(3)
    session = session_of(engine)
    prompt = session._tree.prompt
    first = await session.complete(prompt, None)
    assert first.completion is not None
    sampled = first.completion.token_ids.tolist()
    again = tokenizer().encode(tokenizer().decode(sampled), add_special_tokens=False)
    assert again != sampled, "it does not survive being decoded and encoded"
    rest = tokenizer().encode("\n<|im_start|>user\nand?<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    await session.complete(np.asarray([*prompt, *sampled, *rest], dtype=np.int32), None)
    await session.complete(np.asarray([*prompt, *again, *rest], dtype=np.int32), None)
    record = session.close()
    check(record, engine)
    assert reasons(record) == ["drift"]


async def test_a_context_that_begins_elsewhere_is_refused_before_anything_is_sampled() -> None:
    engine = engine_of("abc")
    session = session_of(engine)
    with pytest.raises(PromptRefused, match="not even its first token in common"):
        await session.complete(np.asarray([5, 6], dtype=np.int32), None)
    assert not engine.feeds


async def test_thoughts_that_a_request_leaves_out_are_not_missed() -> None:
    engine = engine_of("<think>hell</think>abc", "cab", "12")
    session = session_of(engine)
    first = (await session.turn(())).message
    assert (first.reasoning, first.content) == ("hell", "abc")
    second = (await session.turn((replace(first, reasoning=""), user("and?")))).message
    await session.turn((first, user("and?"), second, user("so?")))
    record = session.close()
    check(record, engine)
    assert not record.completion.branches


async def test_a_template_that_changes_what_stands_before_is_rendered_anew() -> None:
    engine = engine_of("abc", "cab")
    template = str(tokenizer().chat_template)
    last = template.replace("<|im_end|>\n{% endfor %}{", "{% if loop.last %}!{% endif %}<|im_end|>\n{% endfor %}{")
    assert last != template
    engine.tokenizer = pair_tokenizer(last)
    session = session_of(engine)
    first = (await session.turn(())).message
    await session.turn((first, user("and?")))
    record = session.close()
    check(record, engine)
    assert reasons(record) == ["template"]


async def test_plain_text_goes_on_without_a_template() -> None:
    engine = engine_of("abc", "cab")
    session = session_of(engine, template="text", tools=())
    first = (await session.turn(())).message
    await session.turn((first, user("12")))
    record = session.close()
    check(record, engine)
    assert tokenizer().decode(record.completion.token_ids) == "abc<|im_end|>12cab<|im_end|>"


class Driver:
    """Does to a session what agents do, at random."""

    def __init__(self, session: EpisodeSession, chance: random.Random) -> None:
        self.session, self.chance = session, chance
        self.histories: list[tuple[ChatMessage, ...]] = [()]
        self.contexts: list[list[int]] = [session._tree.prompt.tolist()]

    def observed(self, history: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        """What an environment says to the last turn."""
        if not history:
            return ()
        calls = history[-1].tool_calls
        if calls:
            return tuple(tool(self.chance.choice(["12 abc", "hell", "  "]), call) for call in calls)
        return (user(self.chance.choice(["and?", "hello again", "12"])),)

    async def ask(self) -> None:
        history = self.chance.choice(self.histories[-3:])
        messages = (*history, *self.observed(history))
        dice = self.chance.random()
        if dice < 0.15 and history:  # rewritten
            place = self.chance.randrange(len(messages))
            content = self.chance.choice(["abc", messages[place].content + "!", messages[place].content.strip()])
            messages = (*messages[:place], replace(messages[place], content=content), *messages[place + 1 :])
        if dice > 0.85:
            await self._ask_by_tokens()
        elif dice > 0.7:
            await self._ask_whole(messages)
        else:
            turn = await self.session.turn(messages)
            if turn.num_tokens:
                self.histories.append((*messages, turn.message))

    async def _ask_whole(self, messages: tuple[ChatMessage, ...]) -> None:
        start = self.chance.choice([(QUESTION,), (QUESTION,), (OTHER, QUESTION)])
        tools = self.chance.choice([(TOOL,), (TOOL,), ()])
        taken = await self.session.answer((*start, *messages), tools, self.chance.choice([None, None, 4]))
        if taken.completion is not None:
            self.histories.append((*messages, taken.turn.message))
            self.contexts.append([*taken.context.tolist(), *taken.completion.token_ids.tolist()])

    async def _ask_by_tokens(self) -> None:
        context = self.chance.choice(self.contexts)
        if self.chance.random() < 0.5:  # a client that renders the history again
            context = tokenizer().encode(tokenizer().decode(context), add_special_tokens=False)
        more = tokenizer().encode("\n<|im_start|>user\nhell<|im_end|>\n", add_special_tokens=False)
        context = [*context, *(more if self.chance.random() < 0.7 else [])]
        taken = await self.session.complete(np.asarray(context, dtype=np.int32), None)
        if taken.completion is not None:
            self.contexts.append([*context, *taken.completion.token_ids.tolist()])


async def random_episode(number: int) -> tuple[EpisodeRecord, NotingEngine]:
    chance = random.Random(number)
    engine = NotingEngine(tokenizer(), chance, cut=0.1, delays=True)
    session = session_of(
        engine,
        turn_tokens=chance.choice([10, 200]),
        episode_tokens=chance.choice([None, 150, 900]),
        window=chance.choice([room_for(120), 4000, 4000]),
    )
    driver = Driver(session, chance)
    for _ in range(chance.randrange(1, 7)):
        await asyncio.gather(*(driver.ask() for _ in range(chance.choice([1, 1, 1, 2, 3]))))
    return session.close(), engine


@pytest.mark.parametrize("first", range(0, 1000, 250))
async def test_a_thousand_random_episodes_are_recorded_as_they_were_fed(first: int) -> None:
    found: Counter[str] = Counter()
    num_turns = 0
    for number in range(first, first + 250):
        record, engine = await random_episode(number)
        check(record, engine)
        found.update(reasons(record))
        num_turns += len(engine.feeds)
    assert num_turns > 750
    assert {"rewritten", "parallel", "drift", "cut_off", "prompt"} <= set(found)


async def test_a_random_episode_is_the_same_when_it_is_repeated() -> None:
    feeds: list[list[Feed]] = []
    for _ in range(2):
        _, engine = await random_episode(7)
        feeds.append(engine.feeds)
    assert feeds[0] == feeds[1]
