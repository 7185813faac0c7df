"""One error type per boundary. Every message says what is wrong and what to do; all survive pickling."""

from __future__ import annotations


class RayzeroError(Exception):
    """Base of every error that rayzero raises on purpose. `str(error)` is fit for a user's terminal."""

    exit_code = 1


class UsageError(RayzeroError):
    """It cannot be done as it was asked: an argument, a name or a file is wrong. Names it, and the fix."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe, an override or an input file is refused before any actor starts. Names the key or line, and the fix."""


class PromptRefused(RecipeError):
    """One prompt cannot be given to the model: it costs itself, and nothing else. Names it, and the fix."""


class PromptTooLong(PromptRefused):
    """It leaves no room for a completion."""


class NothingToTrainOn(RayzeroError):
    """Group after group was dropped, and none could be trained on; the message counts the reasons."""


class NotInstalled(RayzeroError):
    """A command needs a package or a folder that this installation was made without. Says what to install."""

    exit_code = 2


class ActorStartError(RayzeroError):
    """An actor could not start; the message holds the cause, not a remote traceback."""


class ActorLostError(ActorStartError):
    """An actor's process or node went while it started: another one may well start."""


class WorkerError(RayzeroError):
    """A worker failed or died while it was asked for something. The work can be given to another."""


class WorkerLostError(WorkerError):
    """Its process or its node is gone."""


class TaskFailedError(WorkerError):
    """What it was asked raised an error in it; the worker itself lives."""


class EngineFailed(RayzeroError):
    """The engine that an episode ran at failed, not the worker that drove it: the group is given to another engine."""


class EnvironmentFailed(RayzeroError):
    """An environment could not do what it must: it did not start, its process died, or get_reward raised."""


class EpisodeClosed(RayzeroError):
    """An episode's session takes no more calls: it was closed, its attempt was given up, or it never was there."""


class DeadlineError(RayzeroError):
    """A wait ran out: says who waited for whom, for what and how long."""


class WeightSyncError(RayzeroError):
    """Weights did not arrive as sent: names the worker and the tensor."""


class TransferLost(WeightSyncError):
    """The learner or another receiver is gone, or its bytes did not come in time: the one that raises this may not be
    to blame."""


class LearnerRestarted(WeightSyncError):
    """The learner died within a broadcast and was started anew: its receivers are not to blame."""


class RunDirectoryError(RayzeroError):
    """The run directory cannot be written, or what it holds is damaged."""


class RunHalted(RayzeroError):
    """A watched figure passed its limit (NaN, mismatch): state is saved, the figures are in the message."""


class UpdateTorn(RunHalted):
    """The same after earlier steps of the update were taken: what the learner then holds is no version."""


class RunUnreachable(RayzeroError):
    """A run that was to be asked something does not answer: it is not running, or is on another machine."""

    exit_code = 3
