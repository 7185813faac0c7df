"""The run's own part of a checkpoint: the buffer's groups, the data cursor, the counters.

Nothing in it can be executed: names and values are JSON, arrays lie beside it in safetensors. Prompts are kept by their
ids; they come from the data again, which must be the same for a run to go on.

state/run.json          named fields
state/run.safetensors   every group's tokens, log-probabilities and routing, one group behind the other
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.causes import ErrorCause
from rayzero.services.schema.messages import (
    Completion,
    FinishReason,
    Group,
    Prompt,
    Rollout,
    Verdict,
    VerdictStatus,
    VersionSpan,
)
from rayzero.services.store.episode_rows import episode_row, with_episode

TEXT_FILE, ARRAYS_FILE = "run.json", "run.safetensors"
DTYPES: Mapping[str, type[np.generic]] = {
    "prompt_tokens": np.int32, "tokens": np.int32, "logprobs": np.float32, "routed_experts": np.uint8,
}  # fmt: skip

T = TypeVar("T")
FindPrompt = Callable[[str], Prompt]


@dataclass(slots=True)
class PackedState:
    """A controller's `state_dict` as it is written: taken at once, so that the run may go on."""

    text: str
    arrays: dict[str, NDArray[Any]]

    @staticmethod
    def of(state: Mapping[str, Any]) -> PackedState:
        """Everything of `state` by name."""
        arrays = _Arrays()
        buffer = state["buffer"]
        entries = [
            {
                "group_id": group_id,
                "prompt_id": prompt.prompt_id,
                "admitted_version": admitted_version,
                "group": None if group is None else _plain_group(group, arrays),
            }
            for group_id, prompt, admitted_version, group in buffer["entries"]
        ]
        # An object has names alone for keys, and versions are numbers.
        accuracies = [[version, accuracy] for version, accuracy in state["accuracies"].items()]
        plain = {**state, "buffer": {**buffer, "entries": entries}, "accuracies": accuracies}
        return PackedState(json.dumps(plain), arrays.joined())

    def write(self, folder: Path) -> None:
        """Into a checkpoint's `state` folder."""
        from safetensors.numpy import save

        (folder / TEXT_FILE).write_text(self.text, encoding="ascii")
        (folder / ARRAYS_FILE).write_bytes(save(self.arrays))


def read_state(folder: Path, find: FindPrompt) -> dict[str, Any]:
    """What `PackedState.of` was given; `find` gives the prompt of an id.

    Raises:
        ValueError, KeyError, TypeError, …: it is not what was written.
    """
    from safetensors.numpy import load

    state = json.loads((folder / TEXT_FILE).read_text(encoding="ascii"))
    buffer, arrays = state["buffer"], _Arrays.split(load((folder / ARRAYS_FILE).read_bytes()))
    entries = []
    for entry in _a(list, buffer["entries"]):
        group_id, prompt = _a(int, entry["group_id"]), find(_a(str, entry["prompt_id"]))
        group = None if entry["group"] is None else _group(group_id, prompt, entry["group"], arrays)
        entries.append((group_id, prompt, _a(int, entry["admitted_version"]), group))
    numbers = {name: _a(int, buffer[name]) for name in ("version", "next_group_id", "num_held")}
    dropped = {reason: _a(int, count) for reason, count in buffer["dropped"].items()}
    return {
        "buffer": {**numbers, "dropped": dropped, "entries": entries},
        "prompts": _a(dict, state["prompts"]),
        "accuracies": {_a(int, version): _a(float, accuracy) for version, accuracy in state["accuracies"]},
        "num_tokens": _a(int, state["num_tokens"]),
        "num_samples": _a(int, state["num_samples"]),
    }


@dataclass(slots=True)
class _Arrays:
    """Arrays one behind the other: put in while packing, taken out in the same order."""

    pieces: dict[str, list[NDArray[Any]]] = field(default_factory=lambda: {name: [] for name in DTYPES})

    @staticmethod
    def split(arrays: Mapping[str, NDArray[Any]]) -> _Arrays:
        # A state of before routing was recorded has none.
        arrays = {"routed_experts": np.zeros(0, np.uint8), **arrays}
        if any(arrays[name].dtype != dtype or arrays[name].ndim != 1 for name, dtype in DTYPES.items()):
            raise ValueError(f"{ARRAYS_FILE} holds other arrays")
        return _Arrays({name: [arrays[name]] for name in DTYPES})

    def joined(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate([np.zeros(0, DTYPES[name]), *parts]) for name, parts in self.pieces.items()}

    def put(self, name: str, array: NDArray[Any]) -> int:
        """Its length, by which it is found again."""
        self.pieces[name].append(np.asarray(array, DTYPES[name]))
        return len(array)

    def take(self, name: str, length: int) -> NDArray[Any]:
        (left,) = self.pieces[name]
        if not 0 <= _a(int, length) <= len(left):
            raise ValueError(f"{ARRAYS_FILE} has too few {name}")
        self.pieces[name] = [left[length:]]
        return left[:length].copy()

    def put_experts(self, experts: NDArray[Any] | None) -> dict[str, Any]:
        """By what [R, L, K] of either width are found again; nothing where nothing was recorded."""
        if experts is None:
            return {}
        self.put("routed_experts", np.ascontiguousarray(experts).reshape(-1).view(np.uint8))
        return {"routed_experts": {"shape": list(experts.shape), "dtype": experts.dtype.name}}

    def take_experts(self, plain: Mapping[str, Any]) -> NDArray[Any] | None:
        if "routed_experts" not in plain:
            return None
        kind = {"uint8": np.uint8, "uint16": np.uint16}[plain["routed_experts"]["dtype"]]
        shape = tuple(_a(int, number) for number in plain["routed_experts"]["shape"])
        taken = self.take("routed_experts", math.prod(shape) * np.dtype(kind).itemsize)
        return taken.view(kind).reshape(shape)


def _plain_group(group: Group, arrays: _Arrays) -> dict[str, Any]:
    return {
        "worker": group.worker,
        "num_prompt_tokens": arrays.put("prompt_tokens", group.prompt_token_ids),
        **arrays.put_experts(group.prompt_routed_experts),
        "rollouts": [_plain_rollout(rollout, arrays) for rollout in group.rollouts],
    }


def _plain_rollout(rollout: Rollout, arrays: _Arrays) -> dict[str, Any]:
    completion, verdict = rollout.completion, rollout.verdict
    arrays.put("logprobs", completion.rollout_logprobs)
    return {
        "text": completion.text,
        "num_tokens": arrays.put("tokens", completion.token_ids),
        "versions": [[span.start, span.end, span.policy_version] for span in completion.version_spans],
        "finish_reason": completion.finish_reason,
        "kl_rollout": rollout.kl_rollout,
        "routing": [arrays.put_experts(path.routed_experts) for path in completion.paths],
        **({} if (episode := episode_row(completion)) is None else {"episode": episode}),
        "verdict": {
            "reward": verdict.reward,
            "components": dict(verdict.components),
            "status": verdict.status.value,
            "reason": verdict.reason,
            "seconds": verdict.seconds,
            "tests": [dict(test) for test in verdict.tests],
            "cause": None if verdict.cause is None else verdict.cause.value,
            **({} if verdict.parts is None else {"parts": {name: list(part) for name, part in verdict.parts.items()}}),
            **({"extra": dict(verdict.extra)} if verdict.extra else {}),
        },
    }


def _group(group_id: int, prompt: Prompt, plain: Mapping[str, Any], arrays: _Arrays) -> Group:
    return Group(
        group_id=group_id,
        prompt=prompt,
        prompt_token_ids=arrays.take("prompt_tokens", plain["num_prompt_tokens"]),
        prompt_routed_experts=arrays.take_experts(plain),
        rollouts=tuple(_rollout(rollout, arrays) for rollout in plain["rollouts"]),
        worker=_a(str, plain["worker"]),
    )


def _rollout(plain: Mapping[str, Any], arrays: _Arrays) -> Rollout:
    if plain["finish_reason"] not in get_args(FinishReason):
        raise ValueError(f"no finish reason: {plain['finish_reason']!r}")
    completion = Completion(
        text=_a(str, plain["text"]),
        token_ids=arrays.take("tokens", plain["num_tokens"]),
        rollout_logprobs=arrays.take("logprobs", plain["num_tokens"]),
        version_spans=tuple(
            VersionSpan(start=_a(int, start), end=_a(int, end), policy_version=_a(int, version))
            for start, end, version in plain["versions"]
        ),
        finish_reason=plain["finish_reason"],
    )
    completion = with_episode(completion, plain.get("episode"))
    return Rollout(
        completion=_with_routing(completion, plain.get("routing", ()), arrays),
        verdict=_verdict(plain["verdict"]),
        kl_rollout=None if plain["kl_rollout"] is None else _a(float, plain["kl_rollout"]),
    )


def _with_routing(completion: Completion, plain: Sequence[Mapping[str, Any]], arrays: _Arrays) -> Completion:
    """Of its paths, in order; none in a state of before routing was recorded."""
    if not any(plain):
        return completion
    own, *others = (arrays.take_experts(each) for each in plain)
    branches = tuple(
        replace(branch, completion=replace(branch.completion, routed_experts=experts))
        for branch, experts in zip(completion.branches, others, strict=True)
    )
    return replace(completion, routed_experts=own, branches=branches)


def _verdict(plain: Mapping[str, Any]) -> Verdict:
    return Verdict(
        reward=_a(float, plain["reward"]),
        components={name: _a(float, score) for name, score in plain["components"].items()},
        status=VerdictStatus(plain["status"]),
        reason=_a(str, plain["reason"]),
        seconds=_a(float, plain["seconds"]),
        tests=tuple(_a(dict, test) for test in plain["tests"]),
        cause=None if plain["cause"] is None else ErrorCause(plain["cause"]),
        parts={name: _part(part) for name, part in plain["parts"].items()} if "parts" in plain else None,
        extra=_a(dict, plain.get("extra", {})),
    )


def _part(plain: Any) -> tuple[float, float]:
    weight, score = plain
    return _a(float, weight), _a(float, score)


def _a(kind: type[T], value: Any) -> T:
    """The value, if it is of that kind; whole numbers are floats, truth values are no numbers."""
    wanted = (int, float) if kind is float else kind
    if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{value!r:.80} is no {kind.__name__}")
    return value  # type: ignore[return-value]
