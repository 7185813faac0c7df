"""The controller's state as plain data for the API: read in the driver's own loop, so that no two figures disagree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rayzero.services.fleet.fleet import Fleet
from rayzero.services.loop.activity import Phase
from rayzero.services.loop.controller import Controller
from rayzero.services.loop.group_buffer import GroupBuffer, GroupState
from rayzero.services.store.run_seconds import update_seconds

SHOWN_FIGURES = (
    "update",
    "reward_mean",
    "train_accuracy",
    "entropy",
    "kl_rollout",
    "grad_norm",
    "completion_tokens_mean",
    "truncated_share",
    "staleness_mean",
    "wait_s",
    "update_s",
    "sync_s",
)


def workers(controller: Controller) -> list[dict[str, Any]]:
    """Every worker with its state, its load and what it is behind."""
    version = controller.buffer.version
    engines = [
        {
            **_slot(slot, "rollout"),
            "policy_version": slot.policy_version if slot.policy_version >= 0 else None,
            "lag_versions": max(0, version - slot.policy_version) if slot.policy_version >= 0 else None,
        }
        for slot in controller.rollouts.slots
    ]
    others = [fleet for fleet in controller.runner.fleets if fleet is not controller.rollouts]
    return [*engines, *(_slot(slot, fleet.role) for fleet in others for slot in fleet.slots)]


def fleets(controller: Controller) -> dict[str, dict[str, int]]:
    """How many workers of each role there should be and are."""
    return {fleet.role: _fleet(fleet) for fleet in controller.runner.fleets}


def now(controller: Controller) -> dict[str, Any]:
    """What a run does at this moment, and what of it may be wrong: what the health of a live run is read from."""
    return {
        "now": doing(controller),
        "stalled_s": round(controller.stalled_s, 1),
        "stall_limit_s": controller.recipe.deadlines.stall_s,
        "fleets": fleets(controller),
    }


def doing(controller: Controller) -> str:
    """What the run waits for, in words, e.g. `waits for groups: 3 of 16 are ready, 9 are generated, 4 judged`."""
    if controller.paused:
        return "paused: rayzero resume goes on"
    if not controller.rollouts.serving():
        return "waits for a rollout worker to serve"
    words = {
        Phase.WAIT: _waits_for_groups(controller.buffer),
        Phase.UPDATE: f"the learner makes update {controller.buffer.version + 1}",
        Phase.SYNC: "new weights go to the engines",
        Phase.EVALUATION: "the held-out prompts are answered",
        Phase.CHECKPOINT: "a checkpoint is saved",
    }
    return "; ".join(words[phase] for phase in words if phase in controller.activity.seconds()) or "between two updates"


def _waits_for_groups(buffer: GroupBuffer) -> str:
    counts = buffer.counts()
    ready, wanted = counts[GroupState.READY], buffer.groups_per_update
    on_the_way = f"{counts[GroupState.GENERATING]} are generated, {counts[GroupState.SCORING]} judged"
    return f"waits for groups: {ready} of {wanted} are ready, {on_the_way}"


def queues(controller: Controller) -> dict[str, Any]:
    """Live groups by where they are, the longest wait of each, room, and what was dropped."""
    buffer, now = controller.buffer, controller.buffer.clock()
    oldest: dict[str, float] = {}
    for entry in buffer.entries.values():
        oldest[entry.state.value] = max(oldest.get(entry.state.value, 0.0), now - entry.since_s)
    return {
        "groups": buffer.counts(),
        "oldest_s": {state: round(seconds, 3) for state, seconds in oldest.items()},
        "room": buffer.num_free,
        "groups_per_update": buffer.groups_per_update,
        "max_staleness": buffer.max_staleness,
        "dropped": buffer.dropped_counts(),
    }


def weights(controller: Controller) -> dict[str, Any]:
    """The learner's version and that of every engine."""
    return {
        "policy_version": controller.buffer.version,
        "saved_version": controller.saved_version,
        "engines": {slot.name: slot.policy_version for slot in controller.rollouts.slots},
    }


def bottleneck(rows: Sequence[Mapping[str, Any]], controller: Controller) -> str:
    """Who waits for whom, in a sentence."""
    if not controller.rollouts.serving():
        return "no rollout worker serves yet"
    recent = rows[-8:]
    total = sum(row["wait_s"] + row["update_s"] + row["sync_s"] for row in recent)
    if not total:
        return "no update has been made yet"
    waited = sum(row["wait_s"] for row in recent) / total
    counts = controller.buffer.counts()
    behind = "reward workers" if counts[GroupState.SCORING] > counts[GroupState.GENERATING] else "rollout workers"
    if waited > 0.5:
        return f"the learner waits for the {behind} {waited:.0%} of the time"
    return f"the learner computes {1 - waited:.0%} of the time"


def tokens_per_s(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Completion tokens a second of the last updates' own seconds: a run that was dead between two made none."""
    recent = rows[-8:]
    elapsed = sum(update_seconds(row, before) for before, row in itertools.pairwise(recent))
    tokens = sum(float(row["completion_tokens"]) for row in recent[1:])
    return round(tokens / elapsed, 1) if elapsed > 0 else None


def _fleet(fleet: Fleet[Any]) -> dict[str, int]:
    states = [slot.state.value for slot in fleet.slots]
    return {
        "target": fleet.target,
        "serving": states.count("serving"),
        "coming": states.count("starting") + states.count("joining"),
        "draining": states.count("draining"),
        "restarts": fleet.restarts,
    }


def _slot(slot: Any, role: str) -> dict[str, Any]:
    return {
        "worker": slot.name,
        "role": role,
        "state": slot.state.value,
        "in_flight": slot.in_flight,
        "pid": slot.pid,
        "node": slot.node,
    }
