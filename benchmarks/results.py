"""What the repository keeps of a shipped recipe's runs: docs/results/NAME.json, of which pages and figures are made.

finished runs ─► name, command, date, machine, recipe, members: their figures and curves ─► docs/results/NAME.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rayzero.services.bench.table import machine
from rayzero.services.planning.machine import own_version
from rayzero.services.store.run_directory import write_json


def write_results(
    file: Path,
    name: str,
    command: str,
    dtype: str,
    recipe: Mapping[str, Any],
    members: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Keep the members of a recipe, one a seed, with what they were measured on; what was written."""
    results = {
        "name": name,
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "rayzero": own_version(),
        "dtype": dtype,
        "recipe": dict(recipe),
        "members": list(members),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, results)
    return results
