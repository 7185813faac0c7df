"""Which of a model's completions are good enough to learn from: correct, readable, the best of k, each text once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rayzero.services.schema.config.pipeline import CompletionFilter

PARAGRAPH = re.compile(r"\n\s*\n")


@dataclass(slots=True)
class Sieve:
    """Sifts one prompt's candidates at a time. A candidate is a line of services/store/rollout_file.py."""

    settings: CompletionFilter
    reasons: Counter[str] = field(default_factory=Counter)
    """Why candidates were left out, counted."""
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def best(self, candidates: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The candidates of one prompt that are kept, best first: by reward, then as `ties` says."""
        good = []
        for candidate in candidates:
            reason = fault(candidate, self.settings)
            text = (str(candidate["messages"]), candidate["completion"].strip())
            if not reason and text in self._seen:
                reason = "duplicate"
            if reason:
                self.reasons[reason] += 1
                continue
            self._seen.add(text)
            good.append(candidate)
        by_length = self.settings.ties == "shortest"
        # The sort is stable: what is equal stays as it was sampled.
        good.sort(key=lambda candidate: (-candidate["reward"], candidate["num_tokens"] if by_length else 0))
        if (surplus := len(good) - self.settings.max_per_prompt) > 0:
            self.reasons["not among the best"] += surplus
        return good[: self.settings.max_per_prompt]


def fault(candidate: dict[str, Any], settings: CompletionFilter) -> str:
    """Why a candidate is not kept; empty when it is."""
    components, text = candidate["components"], candidate["completion"]
    if candidate["status"] == "error":
        return "no verdict"
    if components.get("accuracy", 1.0 if candidate["status"] == "correct" else 0.0) < 1.0:
        return "wrong"
    if candidate["finish_reason"] != "stop":
        return "cut off"
    for name, least in settings.min_components.items():
        if components.get(name, 0.0) < least:
            return f"low {name}"
    if not settings.allow_code_blocks and ("```" in text or "~~~" in text):
        return "code block"
    limit = settings.max_paragraph_chars
    if limit is not None and any(len(paragraph) > limit for paragraph in PARAGRAPH.split(text)):
        return "long paragraph"
    return ""
