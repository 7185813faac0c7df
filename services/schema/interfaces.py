"""What the control plane asks of its actors. Ray handles stand behind these in production, scripted fakes in tests.

Every method raises `WorkerError` when the actor failed or died and `DeadlineError` when it did not answer in time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rayzero.services.schema.episodes import EpisodeEnd, EpisodeRecord, EpisodeRequest, SessionTurn
from rayzero.services.schema.messages import (
    ChatMessage,
    Completion,
    Group,
    GroupCompletions,
    GroupRequest,
    Prompt,
    UpdateResult,
    Verdict,
)
from rayzero.services.schema.weights import Rendezvous, WeightManifest, WeightReceipt

SftExample = tuple[NDArray[np.int32], NDArray[np.int32]]
"""(prompt_token_ids [P], completion_token_ids [T]); only the completion is learned."""


class Worker(Protocol):
    """What a fleet needs of a worker, besides its work."""

    name: str

    @property
    def pid(self) -> int | None:
        """Of its process; None until it is placed, or where it has none of its own."""
        ...

    @property
    def node(self) -> str:
        """Ray's id of the node it lives on; empty until it is placed."""
        ...

    async def shutdown(self) -> None:
        """End it and everything it started; does not raise when it is dead already."""
        ...


class RolloutWorker(Worker, Protocol):
    """One engine."""

    @property
    def metrics_target(self) -> str:
        """`host:port` of the engine's own metrics, for Prometheus; empty where there are none."""
        ...

    async def generate(self, request: GroupRequest) -> GroupCompletions:
        """Sample all completions of one group."""
        ...

    async def abort(self, group_id: int) -> None:
        """End a group early: its `generate` returns what there is, the turns of its episodes are over. Nothing happens
        when it has ended."""
        ...

    async def open_episode(self, request: EpisodeRequest) -> str:
        """Begin an episode; its session's id, which can't be guessed."""
        ...

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        """Sample the next turn. `messages`: all of the conversation after the prompt, the model's own turns as they
        were returned.

        Raises:
            EpisodeClosed: there is no such session any more.
        """
        ...

    async def close_episode(self, session: str) -> EpisodeRecord:
        """End an episode; the tokens that the engine was fed and returned. What still runs of it is lost.

        Raises:
            EpisodeClosed: there is no such session any more.
        """
        ...

    async def serve_episodes(self) -> str:
        """Where agents find the OpenAI-compatible endpoint of this engine's episodes, as `host:port`."""
        ...

    async def watch_episode(self, session: str, start_s: float, step_s: float) -> EpisodeEnd:
        """Wait until an agent has left its session alone for too long, or is not wanted any more; why that ends it.

        Raises:
            EpisodeClosed: there is no such session any more.
        """
        ...

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """[T] log-probabilities of given tokens under the served weights, at temperature 1."""
        ...

    async def join_transfer(self, rendezvous: Rendezvous, rank: int) -> None:
        """Meet the learner and the other receivers; returns once all are there."""
        ...

    async def receive_weights(self, manifest: WeightManifest) -> None:
        """Take one broadcast into a staging buffer and hold it against the manifest, while generation goes on."""
        ...

    async def apply_weights(self, policy_version: int) -> WeightReceipt:
        """Pause, load what was received, resume."""
        ...

    async def sleep(self) -> None:
        """Leave the GPU's memory to the learner: weights to the host, keys and values given up."""
        ...

    async def wake(self) -> None:
        """Take it again, and go on."""
        ...


class SessionHost(Protocol):
    """What drives an episode asks of the engine: a session holds the tokens, and gives one turn after the other."""

    async def open_episode(self, request: EpisodeRequest) -> str:
        """Render the prompt and begin a session; its name.

        Raises:
            PromptRefused: the model's template cannot render it, or it leaves no room.
        """
        ...

    async def turn(self, session: str, messages: Sequence[ChatMessage]) -> SessionTurn:
        """What the model says next, after the whole conversation that followed the prompt."""
        ...

    async def close_episode(self, session: str) -> EpisodeRecord:
        """End the session: what it recorded."""
        ...

    async def serve_episodes(self) -> str:
        """`host:port` of the endpoint where an agent may ask for turns by itself."""
        ...

    async def watch_episode(self, session: str, start_s: float, step_s: float) -> EpisodeEnd:
        """Returns when an agent has asked for nothing for `start_s` seconds (before its first turn: as
        `environment_error`) or `step_s` (as `step_deadline`), or is not wanted any more (as `aborted`)."""
        ...


class EnvironmentWorker(Worker, Protocol):
    """One actor that runs episodes: the user's environments in processes of their own."""

    async def run_episode(self, request: EpisodeRequest, engine: SessionHost) -> EpisodeRecord:
        """Drive one episode to its end at an engine; the record, with how it went.

        Raises:
            EngineFailed: the engine failed, not this worker.
            PromptRefused: the model cannot be given the prompt.
        """
        ...


class RewardWorker(Worker, Protocol):
    """One reward actor."""

    async def score(self, prompt: Prompt, prompt_text: str, completions: Sequence[Completion]) -> tuple[Verdict, ...]:
        """One verdict a completion, in order."""
        ...


class LearnerHandle(Protocol):
    """The one learner (all its ranks where it is sharded)."""

    @property
    def pid(self) -> int | None:
        """Of its process, rank 0's where it is sharded; None while there is none."""
        ...

    @property
    def node(self) -> str:
        """Ray's id of the node it lives on; empty while there is none."""
        ...

    @property
    def revivals(self) -> int:
        """How often it was started anew since the run began."""
        ...

    async def update(self, groups: Sequence[Group], policy_version: int) -> UpdateResult:
        """One batch; the policy becomes `policy_version`."""
        ...

    async def logprobs(self, prompt_token_ids: NDArray[np.int32], token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """[T] log-probabilities of given tokens under the current policy, at temperature 1."""
        ...

    async def sft_step(self, examples: Sequence[SftExample], update: int) -> Mapping[str, float]:
        """Supervised step `update`, from 0, on (prompt tokens, completion tokens) pairs; its figures."""
        ...

    async def end_sft(self) -> None:
        """The loop's own optimizer settings, fresh moments, and the policy of now as the reference."""
        ...

    async def open_transfer(self, num_receivers: int) -> Rendezvous:
        """Choose where the transfer group meets. Ends the group before it, if any."""
        ...

    async def accept_transfer(self) -> None:
        """Wait, as rank 0, until every receiver has joined."""
        ...

    async def abort_transfer(self) -> None:
        """A receiver is lost: let `accept_transfer` or `broadcast_weights`, where under way, fail now."""
        ...

    async def prepare_weights(self, policy_version: int) -> WeightManifest:
        """Lay out the current weights for one broadcast; cast and digest them, where they are not made while they are
        sent. They stay as they are until it is over."""
        ...

    async def broadcast_weights(self) -> int:
        """Send what was prepared to all receivers at once; the most bytes that went to one of them."""
        ...

    async def save_checkpoint(self, directory: str) -> None:
        """Write policy (Hugging Face format), optimizer and RNG state."""
        ...

    async def load_checkpoint(self, directory: str) -> None:
        """Continue exactly where `save_checkpoint` left off."""
        ...

    async def shutdown(self) -> None:
        """End it and everything it started; does not raise when it is dead already."""
        ...


class PromptSource(Protocol):
    """Where the next prompt comes from; its cursor is part of a checkpoint."""

    def next(self) -> Prompt:
        """The next prompt: never ends, goes through the data again in a new order."""
        ...

    def learn(self, group: Group) -> None:
        """A group of one of its prompts is judged: what is given next may depend on it."""
        ...

    def counts(self) -> Mapping[str, int]:
        """How many turns of prompts were passed over, by why."""
        ...

    def find(self, prompt_id: str) -> Prompt:
        """The prompt of an id.

        Raises:
            RecipeError: there is none: the data is not what it was.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The cursor, JSON-like."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a cursor."""
        ...
