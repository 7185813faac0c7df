"""Admits, collects and retires groups, and bounds their staleness. Plain asyncio: no Ray, no clock but the caller's.

A group admitted at version v with staleness bound s has the deadline v + s: the last learner version whose update may
still train on it. With B groups an update the buffer keeps, for every learner version u and every deadline d ≥ u,

    (live groups with deadline ≤ d)  ≤  (d − u + 1) · B + X                                        (feasible)

so that every live group can still be trained on in time, all but X that were begun to spare. `num_free` admits only up
to (s + 1) · B + X live groups, which is (feasible) for the newest deadline; `_batch` takes earliest deadlines first and
refuses a batch that would break it for the next version; `take_now` gives up whom no later update may use.
services/README.md has the proof in words.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rayzero.services.schema.causes import DropReason
from rayzero.services.schema.errors import DeadlineError
from rayzero.services.schema.messages import Group, Prompt


class GroupState(StrEnum):
    """Where a live group is on its way."""

    WAITING = "waiting"
    GENERATING = "generating"
    SCORING = "scoring"
    READY = "ready"
    TRAINING = "training"


_READY = GroupState.READY
"""An enumeration's member takes longer to look up than to compare, and every step of every group asks for it."""


@dataclass(slots=True)
class Entry:
    """One live group."""

    group_id: int
    prompt: Prompt
    admitted_version: int
    state: GroupState = GroupState.WAITING
    since_s: float = 0.0
    holder: str = ""
    """Which worker has it, for the stall report."""
    group: Group | None = None
    oldest_version: int = 0
    """Of the group's tokens, once there is one."""
    dropped_for: DropReason | None = None
    """Why it was dropped while its work went on, or after that was done; None: it is live."""


@dataclass(slots=True)
class GroupBuffer:
    """The live groups of a run.

    `record(event, group_id, **details)` is called on every admission and retirement: the ledger.
    """

    groups_per_update: int
    max_staleness: int
    drop_stale: bool
    record: Callable[..., None]
    clock: Callable[[], float]
    num_spare: int = 0
    """X, groups that are live beyond those which can be trained on."""
    on_early_drop: Callable[[Entry], None] = lambda entry: None
    """Called for a group that is dropped while a worker still has it, or after it was finished."""
    version: int = 0
    next_group_id: int = 0
    entries: dict[int, Entry] = field(default_factory=dict)
    dropped: Counter[DropReason] = field(default_factory=Counter)
    """Groups that were retired untrained, by reason; the ledger has the details."""
    num_held: int = 0
    """Batches that were whole and waited all the same, for a group that would have been past its bound."""
    _held_at: int = -1
    """Version of the last one."""
    _ready: dict[int, Entry] = field(default_factory=dict)
    """Those of `entries` that are READY: looked at on every change, so not searched for among thousands."""
    _live_until: Counter[int] = field(default_factory=Counter)
    """How many of `entries` have which deadline."""
    _ready_until: Counter[int] = field(default_factory=Counter)
    """How many of those are READY."""
    _interrupted: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def num_free(self) -> int:
        """How many groups may be admitted now without any of them going stale."""
        return (self.max_staleness + 1) * self.groups_per_update + self.num_spare - len(self.entries)

    def admit(self, prompt: Prompt) -> Entry:
        """Give a prompt its place; the caller runs it from here."""
        if self.num_free <= 0:
            raise ValueError(f"no room at version {self.version}: {len(self.entries)} groups are live")
        entry = Entry(self.next_group_id, prompt, self.version, since_s=self.clock())
        self.next_group_id += 1
        self._enter(entry)
        self.record("admitted", entry.group_id, version=self.version, prompt_id=prompt.prompt_id)
        return entry

    def move(self, entry: Entry, state: GroupState, holder: str = "") -> None:
        """Note that a group went one step on (or back, after a failure), and who has it now."""
        if entry.state is _READY:
            self._no_longer_ready(entry)
        entry.state, entry.holder, entry.since_s = state, holder, self.clock()
        if state is _READY:
            self._ready[entry.group_id] = entry
            self._ready_until[self._deadline(entry)] += 1
            self.notify()

    def commit(self, entry: Entry, group: Group) -> None:
        """A group is scored: ready for the learner."""
        if entry.group_id not in self.entries:
            return  # dropped as stale while it was being scored: it is in the ledger already
        self._ready_with(entry, group)

    def drop(self, entry: Entry, reason: DropReason, detail: str = "") -> None:
        """Retire a group untrained. `detail` goes to the ledger beside the reason: what happened, in words."""
        if entry.group_id in self.entries:
            self._leave(entry)
            self.dropped[reason] += 1
            details = {"reason": reason.value, **({"detail": detail} if detail else {})}
            self.record("dropped", entry.group_id, version=self.version, **details)
            self.notify()

    async def wait_for_batch(self, deadline_s: float) -> None:
        """Sleep until there is a batch to take, or `interrupt` was called.

        Raises:
            DeadlineError: no batch came together in time; the message says which groups are where.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while self._batch() is None and not self._interrupted:
                    await self.wait_for_change()
        except TimeoutError:
            raise DeadlineError(
                f"the learner waited {deadline_s:g} s for {self.groups_per_update} groups\n{self.describe()}"
            ) from None

    def take_now(self) -> list[Group] | None:
        """The next batch of exactly `groups_per_update` groups, oldest first, none of them past its bound; or None."""
        batch = self._batch()
        if batch is None:
            return None
        for entry in batch:
            self.move(entry, GroupState.TRAINING, "learner")
        if self.num_spare:
            self._drop_spare()
        return [entry.group for entry in batch if entry.group is not None]

    def retire(self, groups: Iterable[Group], new_version: int) -> None:
        """An update was made of these groups: they are trained on, and the learner is at `new_version`."""
        for group in groups:
            self._leave(self.entries[group.group_id])
            self.record("trained", group.group_id, version=new_version)
        self.version = new_version
        if self.drop_stale:
            for entry in [entry for entry in self.entries.values() if self._deadline(entry) < new_version]:
                self._drop_early(entry, DropReason.STALE)
        self.notify()

    async def wait_for_change(self) -> None:
        """Sleep until a group is ready, dropped or retired."""
        self._changed.clear()
        await self._changed.wait()

    def drop_rest(self) -> None:
        """The last update is made: what was begun to spare is not needed."""
        for entry in list(self.entries.values()):
            self._drop_early(entry, DropReason.OVER_PROVISIONED)

    def drop_batch(self, detail: str) -> None:
        """The batch that was taken cannot be trained on, for what `detail` says: retire its groups untrained."""
        for entry in [entry for entry in self.entries.values() if entry.state is GroupState.TRAINING]:
            self.drop(entry, DropReason.HALTED, detail)

    def notify(self) -> None:
        """Wake every task that waits for a change."""
        self._changed.set()

    def interrupt(self) -> None:
        """Let `wait_for_batch` return without a batch: the run is being stopped."""
        self._interrupted = True
        self.notify()

    def num_needed(self, total: int) -> int:
        """Groups yet to be admitted for `total` to be trained on in the whole run, and the spare ones beside them."""
        untrained = total - self.version * self.groups_per_update
        return untrained + self.num_spare - len(self.entries) if untrained > 0 else 0

    def counts(self) -> dict[str, int]:
        """Live groups by state."""
        counts = Counter(entry.state.value for entry in self.entries.values())
        return {state.value: counts.get(state.value, 0) for state in GroupState}

    def dropped_counts(self) -> dict[str, int]:
        """Groups that were retired untrained, by reason in plain words."""
        return {reason.value: count for reason, count in self.dropped.items()}

    def describe(self) -> str:
        """Who holds which groups, since when: one line a group, longest first."""
        now = self.clock()
        rows = sorted(self.entries.values(), key=lambda entry: entry.since_s)
        lines = [
            f"  group {entry.group_id} ({entry.prompt.prompt_id}): {entry.state.value}"
            + (f" at {entry.holder}" if entry.holder else "")
            + f" for {now - entry.since_s:.1f} s, admitted at version {entry.admitted_version}"
            for entry in rows[:20]
        ]
        more = [f"  … and {len(rows) - 20} more"] if len(rows) > 20 else []
        return "\n".join([f"learner version {self.version}, {len(rows)} live groups: {self.counts()}", *lines, *more])

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs; finished groups are kept whole, unfinished ones as their prompts."""
        return {
            "version": self.version,
            "next_group_id": self.next_group_id,
            "dropped": self.dropped_counts(),
            "num_held": self.num_held,
            "entries": [
                (entry.group_id, entry.prompt, entry.admitted_version, entry.group)
                for entry in self.entries.values()
                if entry.state is not GroupState.TRAINING
            ],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore; unfinished groups wait again, under their old numbers and deadlines."""
        self.version, self.next_group_id = state["version"], state["next_group_id"]
        self.dropped, self.num_held = Counter(), state.get("num_held", 0)
        for text, count in state["dropped"].items():
            self.dropped[DropReason.read(text)] += count
        self.entries, self._ready = {}, {}
        self._live_until, self._ready_until = Counter(), Counter()
        for group_id, prompt, admitted_version, group in state["entries"]:
            entry = Entry(group_id, prompt, admitted_version, since_s=self.clock(), group=group)
            self._enter(entry)
            if group is not None:
                self._ready_with(entry, group)

    def _drop_early(self, entry: Entry, reason: DropReason) -> None:
        entry.dropped_for = reason
        self.drop(entry, reason)
        self.on_early_drop(entry)

    def _drop_spare(self) -> None:
        """No later update may use a group that is due now; those that are still on their way go first."""
        due = [e for e in self.entries.values() if self._deadline(e) <= self.version and e.state != GroupState.TRAINING]
        # A finished group costs nothing more, and its batch may still want it.
        due.sort(key=lambda entry: entry.state is GroupState.READY)
        for entry in due[: self.num_spare]:
            self._drop_early(entry, DropReason.OVER_PROVISIONED)

    def _ready_with(self, entry: Entry, group: Group) -> None:
        entry.group, entry.oldest_version = group, group.oldest_version
        self.move(entry, GroupState.READY)

    def _deadline(self, entry: Entry) -> int:
        return entry.admitted_version + self.max_staleness

    def _enter(self, entry: Entry) -> None:
        self.entries[entry.group_id] = entry
        self._live_until[self._deadline(entry)] += 1

    def _leave(self, entry: Entry) -> None:
        del self.entries[entry.group_id]
        self._no_longer_ready(entry)
        deadline = self._deadline(entry)
        self._live_until[deadline] -= 1
        if self._live_until[deadline] == 0:
            del self._live_until[deadline], self._ready_until[deadline]

    def _no_longer_ready(self, entry: Entry) -> None:
        if self._ready.pop(entry.group_id, None) is not None:
            self._ready_until[self._deadline(entry)] -= 1

    def _batch(self) -> list[Entry] | None:
        """Earliest deadlines first; None while there are too few, or while a group must be waited for."""
        while len(self._ready) >= self.groups_per_update:
            if not self.drop_stale and not self._is_feasible():
                self.num_held += self._held_at != self.version
                self._held_at = self.version
                return None
            ready = sorted(self._ready.values(), key=lambda entry: (self._deadline(entry), entry.group_id))
            batch = sorted(ready[: self.groups_per_update], key=lambda entry: entry.group_id)
            # The check at use: holds even if admission were wrong.
            stale = [entry for entry in batch if self.version - entry.oldest_version > self.max_staleness]
            if not stale:
                return batch
            for entry in stale:
                self._drop_early(entry, DropReason.STALE)
        return None

    def _is_feasible(self) -> bool:
        """Whether, with the most urgent batch taken away, the rest can still be trained on in time."""
        left_in_batch, rest = self.groups_per_update, 0
        for deadline in sorted(self._live_until):
            taken = min(self._ready_until[deadline], left_in_batch)
            left_in_batch -= taken
            rest += self._live_until[deadline] - taken
            if rest > max(0, deadline - self.version) * self.groups_per_update + self.num_spare:
                return False
        return True
