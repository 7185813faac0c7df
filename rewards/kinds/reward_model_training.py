"""Trains a reward model on pairs: `python -m rayzero.rewards.kinds.reward_model_training SPEC.json`, a process of its
own.

-log sigmoid(logit(chosen) − logit(rejected)) (https://arxiv.org/abs/2203.02155, equation 1). Progress and the result
are JSON lines on standard output. Killed, it goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch.nn.functional import logsigmoid

from rayzero.rewards.kinds.reward_model import Classifier
from rayzero.services.schema.devices import Device
from rayzero.services.schema.messages import ChatMessage


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What is trained on what; written by services/pipeline/reward_model.py."""

    model: str
    pairs: str
    """A JSON-lines file with `prompt`, `chosen` and `rejected`."""
    work: str
    """Where the checkpoint goes."""
    output: str
    """An empty directory for the finished model."""
    num_updates: int
    pairs_per_update: int
    learning_rate: float
    held_out_share: float
    checkpoint_every_updates: int
    seed: int
    device: Device = "cpu"


Pair = tuple[list[int], list[int]]


def train(spec: Spec) -> dict[str, Any]:
    """Train to the end; returns the held-out figures and writes the model."""
    torch.manual_seed(spec.seed)
    classifier = Classifier(Path(spec.model), spec.device)
    trained_on, held_out = _read_pairs(spec, classifier)
    classifier.model.train()
    optimizer = torch.optim.AdamW(classifier.model.parameters(), lr=spec.learning_rate, weight_decay=0.0)
    checkpoint = Path(spec.work) / "checkpoint.pt"
    done = _restore(checkpoint, classifier, optimizer)
    for number in range(done + 1, spec.num_updates + 1):
        batch = random.Random(f"{spec.seed}/{number}").choices(trained_on, k=spec.pairs_per_update)
        logits = classifier.forward([row for pair in batch for row in pair])
        loss = -logsigmoid(logits[0::2] - logits[1::2]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(classifier.model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * (1 - (number - 1) / spec.num_updates)
        optimizer.step()
        optimizer.zero_grad()
        if number % spec.checkpoint_every_updates == 0:
            _save(checkpoint, number, classifier, optimizer)
            _say({"update": number, "loss": float(loss.detach())})
    classifier.model.eval()
    figures, centre = _measure(classifier, held_out)
    classifier.save(Path(spec.output), centre)
    return {**figures, "pairs": len(trained_on), "held_out_pairs": len(held_out), "updates": spec.num_updates}


def is_held_out(prompt: str, share: float) -> bool:
    """By the prompt's own hash: no prompt stands on both sides."""
    return xxhash.xxh3_64_intdigest(prompt.encode()) < share * 2**64


def _read_pairs(spec: Spec, classifier: Classifier) -> tuple[list[Pair], list[Pair]]:
    sides: tuple[list[Pair], list[Pair]] = ([], [])
    for line in Path(spec.pairs).read_text(encoding="utf-8").split("\n")[:-1]:
        row = json.loads(line)
        asked = [ChatMessage(role="user", content=row["prompt"])]
        chosen, rejected = (classifier.encode(classifier.render(asked, row[name])) for name in ("chosen", "rejected"))
        sides[is_held_out(row["prompt"], spec.held_out_share)].append((chosen, rejected))
    for pairs, side, fix in zip(sides, ("trained on", "held out"), ("lower", "raise"), strict=True):
        if not pairs:
            raise ValueError(f"no pair is {side}: give pairs of more prompts, or {fix} held_out_share")
    return sides


def _measure(classifier: Classifier, pairs: list[Pair]) -> tuple[dict[str, float], float]:
    """Accuracy on held-out pairs, and the mean logit, which becomes the centre."""
    right, total = 0, 0.0
    with torch.no_grad():
        for start in range(0, len(pairs), 32):
            logits = classifier.forward([row for pair in pairs[start : start + 32] for row in pair])
            right += int((logits[0::2] > logits[1::2]).sum())
            total += float(logits.sum())
    return {"accuracy": right / len(pairs)}, total / (2 * len(pairs))


def _restore(file: Path, classifier: Classifier, optimizer: torch.optim.Optimizer) -> int:
    if not file.is_file():
        return 0
    state = torch.load(file, map_location=classifier.device, weights_only=True)
    classifier.model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["update"])


def _save(file: Path, number: int, classifier: Classifier, optimizer: torch.optim.Optimizer) -> None:
    temporary = file.with_suffix(".tmp")
    state = {"update": number, "model": classifier.model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, temporary)
    temporary.replace(file)


def _say(row: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Train by the spec; an error is the last line on stderr."""
    spec = Spec(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        _say({"done": train(spec)})
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
