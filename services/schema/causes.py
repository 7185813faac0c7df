"""Why a group was dropped, and why a verdict could not be reached: enums to count by; the details stand beside them."""

from __future__ import annotations

from enum import StrEnum


class DropReason(StrEnum):
    """Why a group was retired untrained."""

    FAILED = "failed"
    """A step failed on every worker that tried it."""
    REFUSED = "refused"
    """The model's template cannot render its prompt."""
    TOO_LONG = "too long"
    """Its prompt leaves no room for a completion."""
    VERDICT_ERRORS = "verdict errors"
    """Fewer than two of its completions have a verdict."""
    UNIFORM_REWARDS = "uniform rewards"
    """All its rewards are equal, and the recipe asks for another prompt in its place."""
    OVER_PROVISIONED = "over-provisioned"
    """It was begun to spare, and no later update may use it."""
    STALE = "stale"
    """It is past its bound."""
    HALTED = "halted"
    """The update that it was taken for ended the run."""
    UNKNOWN = "unknown"
    """Recorded by a version that had another word for it."""

    @classmethod
    def read(cls, text: str) -> DropReason:
        """The reason in a text that may go on with its detail, as it did before the two had a field each:
        `failed: generation failed 3 times; …`. For ledgers and checkpoints of then."""
        word = text.partition(":")[0]
        return cls(word) if word in set(cls) else cls.UNKNOWN


class ErrorCause(StrEnum):
    """Why a verdict could not be reached: nothing that the completion could have done better."""

    DEADLINE = "deadline"
    """The reward took too long over this one."""
    QUEUE = "queue"
    """The group's deadline came before it was this one's turn."""
    CPU = "cpu"
    """A child used more CPU time than it may."""
    MEMORY = "memory"
    """A child used more memory than it may."""
    DIED = "died"
    """A child's process ended."""
    START = "start"
    """No child could be started."""
    EXCEPTION = "exception"
    """The reward raised."""
    BAD_RETURN = "bad-return"
    """The reward function returned something else than one number or None for each completion."""
    NOT_FINITE = "not-finite"
    """The reward returned NaN or infinity."""
    BAD_PROMPT = "bad-prompt"
    """The row lacks what the reward needs."""
    SPEC = "spec"
    """The tests of a code prompt cannot be used as they stand."""
    TOOLCHAIN = "toolchain"
    """A language's compiler or interpreter is missing or broken."""
    SANDBOX = "sandbox"
    """The sandbox could not run a program."""
    UNREACHABLE = "unreachable"
    """A server gave no answer."""
    REFUSED = "refused"
    """A server, or what it needs, said no."""
    BAD_REPLY = "bad-reply"
    """A server's answer cannot be read."""
    ENVIRONMENT = "environment"
    """An episode's environment failed, wherever it was tried."""
    TRUNCATED = "truncated"
    """A limit ended the episode, and the recipe drops such ones."""
    NOTHING_APPLIES = "nothing-applies"
    """No component of the rubric applies."""
    UNKNOWN = "unknown"
    """Recorded by a version that had another word for it."""

    @classmethod
    def read(cls, text: str) -> ErrorCause:
        """The cause in a reason that begins with it, as every error's does: `deadline: accuracy: no answer after …`.
        For rollouts that were recorded before the two had a field each."""
        word = text.partition(":")[0]
        return cls(word) if word in set(cls) else cls.UNKNOWN
