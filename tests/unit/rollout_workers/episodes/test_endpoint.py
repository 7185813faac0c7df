"""The endpoint over a real socket, with OpenAI's own client and with requests as they should not be."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError

from rayzero.rollout_workers.episodes import endpoint as endpoint_module
from rayzero.rollout_workers.episodes.endpoint import EpisodeEndpoint
from rayzero.rollout_workers.episodes.lockstep import Lockstep
from rayzero.rollout_workers.episodes.server import EndpointConnection, EndpointServer
from rayzero.rollout_workers.episodes.sessions import EpisodeSessions
from rayzero.services.schema.config.rollout import RolloutSettings
from rayzero.services.schema.episodes import EpisodeRequest
from rayzero.services.schema.errors import WorkerError
from rayzero.services.schema.messages import ChatMessage, Prompt, Sampling
from tests.episode_models import NotingEngine, pair_tokenizer, unfolded

TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
QUESTION: Any = {"role": "user", "content": "hello, look at abc"}
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "abc"}}\n</tool_call>'


class Served:
    """One engine with an episode open, and where it is."""

    def __init__(self, *script: str) -> None:
        self.engine = NotingEngine(pair_tokenizer(), random.Random(0), script=list(script))
        settings = RolloutSettings(max_model_tokens=1024)
        self.sessions = EpisodeSessions(settings, self.engine, Lockstep(None, 1.0), lambda: 0)  # type: ignore[arg-type]
        self.sessions.begin(self.engine.tokenizer, [self.engine.tokenizer.eos_token_id])
        self.url = ""

    def open(self, *tools: Any, max_tokens: int | None = None) -> str:
        question = ChatMessage(role="user", content=str(QUESTION["content"]))
        return self.sessions.open(
            EpisodeRequest(
                group_id=1,
                index=0,
                prompt=Prompt(prompt_id="p", messages=(question,), answer=None),
                sampling=Sampling(num_completions=1, max_tokens=200),
                tools=tools,
                max_tokens=max_tokens,
            )
        )

    def base(self, session: str) -> str:
        return f"{self.url}/sessions/{session}/v1"

    def client(self, session: str, **more: Any) -> Any:
        """Untyped: its overloads know only literals."""
        http: Any = httpx.AsyncClient(trust_env=False)
        return AsyncOpenAI(base_url=self.base(session), api_key="none", http_client=http, **more)

    def check(self, session: str) -> Any:
        """Close it: all that the engine returned is in the record once."""
        record = self.sessions.close(session)
        assert Counter(unfolded(record)) == Counter(self.engine.feeds)
        return record


@asynccontextmanager
async def served(*script: str) -> AsyncIterator[Served]:
    made = Served(*script)
    stops = [made.engine.tokenizer.eos_token_id]
    server = EndpointServer(EpisodeEndpoint(made.sessions, lambda: stops))
    made.url = f"http://{await server.start('127.0.0.1')}"
    assert made.url == f"http://{await server.start('127.0.0.1')}"
    try:
        yield made
    finally:
        await server.stop()


async def test_openais_client_holds_a_conversation_with_tools_on_one_branch() -> None:
    async with served(CALL, "hello 12") as at:
        session = at.open(TOOL)
        async with at.client(session) as client:
            messages: list[Any] = [QUESTION]
            first = await client.chat.completions.create(model="policy", messages=messages, tools=[TOOL])
            (choice,) = first.choices
            assert choice.finish_reason == "tool_calls" and choice.message.content is None
            (call,) = choice.message.tool_calls
            assert json.loads(call.function.arguments) == {"at": "abc"}
            messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "it is 12"}]
            second = await client.chat.completions.create(model="gpt-4o", messages=messages, tools=[TOOL])
            assert second.choices[0].message.content == "hello 12"
            assert second.usage is not None and second.usage.prompt_tokens == len(at.engine.feeds[1].fed)
        record = at.check(session)
        assert not record.completion.branches and len(record.completion.turns) == 2


async def test_a_stream_is_made_of_the_recorded_turn() -> None:
    async with served(f"abc\n{CALL}") as at:
        session = at.open(TOOL)
        async with at.client(session) as client:
            stream = await client.chat.completions.create(
                model="policy",
                messages=[QUESTION],
                tools=[TOOL],
                stream=True,
                stream_options={"include_usage": True},
            )
            chunks = [chunk async for chunk in stream]
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert "".join(delta.content or "" for delta in deltas) == "abc"
        calls = [call for delta in deltas for call in delta.tool_calls or ()]
        assert [call.function.name for call in calls if call.function] == ["look"]
        assert chunks[-1].usage is not None and chunks[-2].choices[0].finish_reason == "tool_calls"
        assert len(at.check(session).completion.turns) == 1


async def test_models_names_the_window() -> None:
    async with served() as at:
        async with at.client(at.open()) as client:
            (model,) = [model async for model in client.models.list()]
        assert (model.id, model.to_dict()["max_model_len"]) == ("policy", 1024)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0.7),
        ("top_p", 0.9),
        ("top_k", 20),
        ("n", 2),
        ("seed", 7),
        ("stop", ["."]),
        ("frequency_penalty", 0.5),
        ("presence_penalty", 0.5),
        ("repetition_penalty", 1.1),
        ("logit_bias", {"5": 10}),
        ("response_format", {"type": "json_object"}),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "look"}}),
        ("parallel_tool_calls", False),
        ("reasoning_effort", "low"),
        ("top_logprobs", 3),
        ("min_tokens", 5),
        ("chat_template_kwargs", {"enable_thinking": False}),
        ("max_tokens", 0),
        ("max_completion_tokens", "9"),
        ("stream", "yes"),
        ("something_new", 1),
        ("messages", []),
        ("messages", "hello"),
        ("tools", {}),
    ],
)
async def test_what_would_change_the_sampling_is_refused_by_its_name(field: str, value: Any) -> None:
    async with served() as at, httpx.AsyncClient(trust_env=False) as client:
        session = at.open()
        body = {"model": "policy", "messages": [QUESTION], field: value}
        answer = await client.post(f"{at.base(session)}/chat/completions", json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == field and field in error["message"] and error["type"] == "invalid_request_error"
        assert not at.engine.feeds


async def test_neutral_values_and_a_lower_limit_are_taken() -> None:
    async with served("abcabcabcabc", "abc") as at:
        session = at.open()
        async with at.client(session) as client:
            answer = await client.chat.completions.create(
                model="policy",
                messages=[{"role": "user", "content": [{"type": "text", "text": str(QUESTION["content"])}]}],
                temperature=1.0,
                top_p=1,
                n=1,
                stop=None,
                max_completion_tokens=2,
                logprobs=True,
                user="me",
                extra_body={"top_k": -1, "repetition_penalty": 1.0},
            )
            assert answer.choices[0].finish_reason == "length"
            assert answer.choices[0].logprobs is not None and len(answer.choices[0].logprobs.content or ()) == 2
            more = await client.chat.completions.create(model="policy", messages=[QUESTION], max_tokens=100_000)
            assert more.choices[0].finish_reason == "stop", "a higher limit is the recipe's"
        record = at.check(session)
        assert record.completion.end is None, "an agent that asked for little may go on"


@pytest.mark.parametrize("path", ["/chat/completions", "/models"])
async def test_without_an_episodes_token_there_is_nothing(path: str) -> None:
    async with served("abc") as at, httpx.AsyncClient(trust_env=False, base_url=at.url) as client:
        session = at.open()
        ask = client.post if path == "/chat/completions" else client.get
        for wrong in (f"/v1{path}", f"/sessions/{session[:-1]}x/v1{path}", f"/sessions//v1{path}", "/", "/metrics"):
            assert (await ask(wrong)).status_code == 401
        assert (await client.delete(f"/sessions/{session}/v1{path}")).status_code == 405
        at.sessions.close(session)
        answer = await ask(f"/sessions/{session}/v1{path}")
        assert answer.status_code == 410 and answer.json()["error"]["code"] == "episode_over"


async def test_a_late_call_ends_with_the_episode_and_records_nothing() -> None:
    async with served("abc") as at:
        session = at.open()
        at.engine.gate = asyncio.Event()
        async with at.client(session) as client:
            late = asyncio.ensure_future(client.chat.completions.create(model="policy", messages=[QUESTION]))
            await asyncio.sleep(0.1)
            record = at.sessions.close(session)
            at.engine.gate.set()
            with pytest.raises(APIStatusError) as raised:
                await asyncio.wait_for(late, 5)
        assert raised.value.status_code == 410
        assert not record.completion.turns and not at.engine.feeds


async def test_the_sdks_retry_gets_the_turn_that_was_sampled_and_two_calls_branch() -> None:
    async with served("abc", "cab", "hell", "12") as at:
        session = at.open()
        at.engine.gate = asyncio.Event()
        async with at.client(session, timeout=0.3, max_retries=3) as client:
            asking = asyncio.ensure_future(client.chat.completions.create(model="policy", messages=[QUESTION]))
            await asyncio.sleep(0.6)
            at.engine.gate.set()
            assert (await asking).choices[0].message.content == "abc"
        assert len(at.engine.feeds) == 1, "one turn, however often it was asked for"
        async with at.client(session) as client:
            asked = [client.chat.completions.create(model="policy", messages=[QUESTION]) for _ in range(2)]
            answers = await asyncio.gather(*asked)
        assert sorted(str(answer.choices[0].message.content) for answer in answers) == ["cab", "hell"]
        record = at.check(session)
        assert [branch.reason for branch in record.completion.branches] == ["parallel", "parallel"]


async def test_the_same_body_without_the_sdks_header_is_a_retry_unless_both_wait() -> None:
    async with served("abc", "cab") as at, httpx.AsyncClient(trust_env=False) as client:
        session = at.open()
        body: dict[str, Any] = {"messages": [QUESTION]}
        one, other = [await client.post(f"{at.base(session)}/chat/completions", json=body) for _ in range(2)]
        assert one.json() == other.json() and len(at.engine.feeds) == 1
        body = {"messages": [QUESTION], "user": "another"}
        at.engine.gate = asyncio.Event()
        with pytest.raises(httpx.ReadTimeout):
            await client.post(f"{at.base(session)}/chat/completions", json=body, timeout=0.2)
        at.engine.gate.set()
        again = await client.post(f"{at.base(session)}/chat/completions", json=body)
        assert again.json()["choices"][0]["message"]["content"] == "cab" and len(at.engine.feeds) == 2
        at.check(session)


async def test_budgets_are_told_in_codes_that_agents_know() -> None:
    async with served("abc") as at:
        session = at.open(max_tokens=30)
        async with at.client(session) as client:
            first = await client.chat.completions.create(model="policy", messages=[QUESTION])
            for content, code in (("a" * 1200, "context_length_exceeded"), ("a" * 100, "episode_max_tokens")):
                messages: list[Any] = [QUESTION, first.choices[0].message, {"role": "user", "content": content}]
                with pytest.raises(BadRequestError) as raised:
                    await client.chat.completions.create(model="policy", messages=messages)
                assert raised.value.code == code
        at.check(session)


async def test_tokens_go_in_and_come_out_under_both_keys() -> None:
    async with served("abc", "cab") as at, httpx.AsyncClient(trust_env=False, base_url=at.url) as client:
        session = at.open()
        prompt = at.sessions.find(session)._tree.prompt.tolist()
        stop = at.engine.tokenizer.eos_token_id
        params = {"max_tokens": 50, "temperature": 1.0, "logprobs": 1, "stop_token_ids": [stop], "top_p": 1.0}
        url = f"/sessions/{session}/inference/v1/generate"
        body = {"model": "policy", "token_ids": prompt, "sampling_params": params}
        answer = (await client.post(url, json=body)).json()
        (choice,) = answer["choices"]
        assert choice["token_ids"] == list(at.engine.feeds[0].gave) and choice["finish_reason"] == "stop"
        for entry, token in zip(choice["logprobs"]["content"], choice["token_ids"], strict=True):
            assert (entry["token"], entry["token_id"]) == (f"token_id:{token}", token)
        for field, value in {
            "stop_token_ids": [5],
            "temperature": 0.5,
            "min_tokens": 3,
            "logprobs": 5,
            "new": 1,
        }.items():
            wrong = {**body, "sampling_params": {**params, field: value}}
            refused = await client.post(url, json=wrong)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, f"sampling_params.{field}")
        for field, value in {"token_ids": [10**6], "stream": True, "content_parts": [{}]}.items():
            refused = await client.post(url, json={**body, field: value})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, field)
        assert at.check(session).completion.token_ids.tolist() == choice["token_ids"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[1]", 400), (b"[" * 100_000, 400), (b'{"messages": [{"role": "user", "content": 1}]}', 400),
     (b'{"messages": [{"role": "king"}]}', 400), (b"x" * 3000, 413), (b'{"messages": [1]}', 400),
     (b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "["}}]}]}', 400)],
)  # fmt: skip
async def test_what_cannot_be_read_is_a_four_hundred(body: bytes, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_BODY_BYTES", 2000 if status == 413 else 200_000)
    async with served() as at, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"{at.base(at.open())}/chat/completions", content=body)
        assert answer.status_code == status, answer.text


async def test_an_engine_that_died_is_a_server_error_that_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served("abc") as at, httpx.AsyncClient(trust_env=False) as client:
        session = at.open()

        async def dead(*_: Any) -> Any:
            raise WorkerError("the engine of rollout-0 has died")

        body = {"messages": [QUESTION]}
        alive = at.sessions.find(session)._parts.sample
        object.__setattr__(at.sessions.find(session)._parts, "sample", dead)
        answer = await client.post(f"{at.base(session)}/chat/completions", json=body)
        assert answer.status_code == 503 and "has died" in answer.text
        object.__setattr__(at.sessions.find(session)._parts, "sample", alive)
        assert (await client.post(f"{at.base(session)}/chat/completions", json=body)).status_code == 200


@pytest.mark.parametrize("retries", ["0", "1", "00", "9" * 5000, "-1", "1e9", "\u00b2", ""])
async def test_a_header_of_any_number_is_no_fault_of_the_server(retries: str) -> None:
    async with served("abc", "abc") as at, httpx.AsyncClient(trust_env=False) as client:
        headers = {"x-stainless-retry-count": retries.encode("latin-1")}
        url = f"{at.base(at.open())}/chat/completions"
        assert (await client.post(url, json={"messages": [QUESTION]}, headers=headers)).status_code == 200  # type: ignore[arg-type]


async def test_half_open_connections_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EndpointConnection, "request_s", 0.3)
    monkeypatch.setattr(endpoint_module, "BODY_S", 0.3)
    async with served("abc") as at, httpx.AsyncClient(trust_env=False) as client:
        port = int(at.url.rpartition(":")[2])
        heads = [b"", b"POST /sess", b"POST /sessions/" + at.open().encode() + b"/v1/chat/completions HTTP/1.1\r\n"
                 b"Host: x\r\nContent-Length: 9\r\n\r\n{"]  # fmt: skip
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(30)]
        for number, (_, writer) in enumerate(opened):
            writer.write(heads[number % 3])
        session = at.open()
        answer = await client.post(f"{at.base(session)}/chat/completions", json={"messages": [QUESTION]})
        assert answer.status_code == 200
        ends = await asyncio.wait_for(asyncio.gather(*(ended(reader) for reader, _ in opened)), 10)
        assert any(b" 408 " in end for end in ends), "one that has sent its head hears why"
        for _, writer in opened:
            writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """What came until it was hung up."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""
