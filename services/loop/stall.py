"""Who waits for whom, since when, holding which groups: what a run says when nothing moves any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.activity import Activity, Phase
from rayzero.services.loop.group_buffer import Entry, GroupBuffer, GroupState
from rayzero.services.schema.errors import DeadlineError

LEARNER_IS = {
    Phase.WAIT: "waits for groups",
    Phase.UPDATE: "makes an update",
    Phase.SYNC: "sends its weights",
    Phase.CHECKPOINT: "saves a checkpoint",
    Phase.EVALUATION: "waits for an evaluation",
}


def stalled(
    seconds: float, activity: Activity, buffer: GroupBuffer, fleets: Sequence[Fleet[Any]], dropped: str
) -> DeadlineError:
    """The error that ends a run which has not come on for so long. `dropped`: what was dropped meanwhile, as lines."""
    report = describe_stall(activity, buffer, fleets)
    return DeadlineError(
        "\n".join(filter(None, (f"stalled: no update could be made for {seconds:.0f} s", dropped, report)))
    )


def describe_stall(activity: Activity, buffer: GroupBuffer, fleets: Sequence[Fleet[Any]]) -> str:
    """A readable report, one line a party."""
    held: dict[str, list[Entry]] = defaultdict(list)
    for entry in buffer.entries.values():
        held[entry.holder].append(entry)
    lines = [_learner(activity, buffer)]
    for fleet in fleets:
        lines += [_slot(fleet, slot, held.pop(slot.name, []), buffer) for slot in fleet.slots]
        lines += [] if fleet.slots else [f"  there is no {fleet.role} worker (there should be {fleet.target})"]
    for holder, entries in held.items():
        waiting = [entry for entry in entries if entry.state is not GroupState.READY and holder != "learner"]
        if waiting:
            who = f"{holder}, which is gone," if holder else "no worker yet (they wait for one)"
            lines.append(f"  {_groups(waiting, buffer)}: held by {who}")
    return "\n".join([*lines, buffer.describe()])


def _learner(activity: Activity, buffer: GroupBuffer) -> str:
    doing = [f"{LEARNER_IS[phase]} for {seconds:.0f} s" for phase, seconds in activity.seconds().items()]
    ready = sum(entry.state is GroupState.READY for entry in buffer.entries.values())
    return (
        f"  the learner {' and '.join(doing) or 'does nothing'}: {ready} of {buffer.groups_per_update} groups are ready"
    )


def _slot(fleet: Fleet[Any], slot: Any, entries: Sequence[Entry], buffer: GroupBuffer) -> str:
    version = f" version {slot.policy_version}" if fleet.needs_weights and slot.policy_version >= 0 else ""
    state = f"{slot.name} is {slot.state.value}{version} for {fleet.clock() - slot.since_s:.0f} s"
    return f"  {state}, holds {_groups(entries, buffer) if entries else 'no group'}"


def _groups(entries: Sequence[Entry], buffer: GroupBuffer) -> str:
    oldest = max(buffer.clock() - entry.since_s for entry in entries)
    names = ", ".join(str(entry.group_id) for entry in entries[:12]) + (", …" if len(entries) > 12 else "")
    return f"group{'s' * (len(entries) > 1)} {names} ({entries[0].state.value} for {oldest:.0f} s)"
