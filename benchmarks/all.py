"""`rayzero bench all`: every part of the system on one device, in one JSON file and one Markdown table.

A part that cannot be measured here says why, and its line says "not measured". The roofline, the learner, its head and
its attention need torch, transformers, numpy and pydantic alone:

    python -m benchmarks.all --device cuda --out results
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from rayzero.services.bench.limits import MachineLimits, measure_limits
from rayzero.services.planning.model_shape import ModelShape
from rayzero.services.planning.published_shapes import PUBLISHED
from rayzero.services.schema.broadcast.transport import Transport

Device = Literal["cpu", "cuda"]
PARTS = ("roofline", "ways", "head", "attention", "learner", "rollout", "sync", "pipeline")
DEFAULT_SHAPE = {"cuda": "Qwen/Qwen3-0.6B", "cpu": "small"}
SMALL = ModelShape(
    hidden_size=192, num_layers=4, num_heads=3, num_kv_heads=3, head_dim=64, intermediate_size=448, vocab_size=512,
    max_positions=1024, tied_embeddings=True, attention_bias=True, qk_norm=False,
)  # fmt: skip
"""What two CPU cores get through in seconds."""
TARGETS: Mapping[tuple[str, str], str] = {
    ("Qwen/Qwen3-0.6B", "learner.tokens_per_s"): "40k / 80k / 100k on an H200",
    ("Qwen/Qwen3-4B", "learner.tokens_per_s"): "7k / 11k / 14k on an H200",
    ("Qwen/Qwen3-0.6B", "ways.ipc.seconds"): "50 / 10 / 3 ms on an H200",
    ("Qwen/Qwen3-0.6B", "head.overhead"): "≤ 10 / 3 / 0 % on an H200",
}
"""Good, better, best: what the project set itself."""


@dataclass(slots=True)
class Bench:
    """One run on one device: what was measured, and what could not be."""

    device: Device
    shape_name: str
    repeats: int = 3
    figures: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _limits: MachineLimits | None = None
    _model: Path | None = None

    @property
    def shape(self) -> ModelShape:
        """Of the model that everything is measured on."""
        return SMALL if self.shape_name == "small" else PUBLISHED[self.shape_name]

    @property
    def limits(self) -> MachineLimits:
        """Measured once."""
        if self._limits is None:
            self._limits = measure_limits(self.device)
        return self._limits

    def run(self, parts: tuple[str, ...], folder: Path) -> None:
        """Measure the parts, in order; a part that fails is noted, and the others go on."""
        work: dict[str, Callable[[], Any]] = {
            "roofline": lambda: asdict(self.limits),
            "ways": self._ways,
            "head": self._head,
            "attention": self._attention,
            "learner": lambda: self._learner(folder),
            "rollout": lambda: self._rollout(folder),
            "sync": lambda: self._sync(folder),
            "pipeline": self._pipeline,
        }
        for part in parts:
            begun = time.monotonic()
            try:
                self.figures[part] = work[part]()
            except ImportError as error:
                self.missing[part] = f"{error.name or error} is not installed"
            except Exception as error:
                self.missing[part] = f"{type(error).__name__}: {error}"
            print(f"{part}: {self.missing.get(part, 'measured')} ({time.monotonic() - begun:.0f} s)", flush=True)

    def _ways(self) -> dict[str, Any]:
        from benchmarks.parts import way

        num_bytes = min(self.shape.weight_bytes("bfloat16"), 2**31)
        if self.device == "cpu":
            num_bytes = max(num_bytes, 2**26)
            ways: dict[str, tuple[str, str, Transport, bool]] = {
                "memory": ("cpu", "cpu", "auto", True),
                "gloo": ("cpu", "cpu", "gloo", False),
            }
        else:
            ways = {"ipc": ("cuda:0", "cuda:0", "auto", True), "host": ("cuda:0", "cuda:0", "gloo", True)}
            if torch.cuda.device_count() > 1:
                ways["nccl"] = ("cuda:0", "cuda:1", "auto", True)
            else:
                self.missing["ways.nccl"] = "needs two GPUs"
        found = {}
        for name, way_of in ways.items():
            try:
                found[name] = way(num_bytes, *way_of)
            except Exception as error:
                self.missing[f"ways.{name}"] = f"{type(error).__name__}: {error}"
        return found

    def _head(self) -> dict[str, float]:
        from benchmarks.parts import head

        return head(self.shape, self.device, self.limits, 16384 if self.device == "cuda" else 512)

    def _attention(self) -> dict[str, float]:
        from benchmarks.parts import packed_attention

        return packed_attention(self.shape, self.device, self.limits, self._mix)

    @property
    def _mix(self) -> str:
        return "long" if self.device == "cuda" else "demo"

    def _learner(self, folder: Path) -> dict[str, Any]:
        from rayzero.services.bench.learner import measure

        return measure(
            str(self._directory(folder)), mix=self._mix, dtype="bfloat16", device=self.device, repeats=self.repeats
        )

    def _rollout(self, folder: Path) -> dict[str, Any]:
        from benchmarks.rollouts import measure

        groups, tokens = (32, 512) if self.device == "cuda" else (4, 32)
        return measure(self._directory(folder), self.shape, self.device, self.limits, groups, tokens)

    def _sync(self, folder: Path) -> dict[str, Any]:
        from rayzero.services.bench.sync import measure

        figures = measure(self._directory(folder), "bfloat16", self.device, num_engines=1, num_syncs=self.repeats)
        return figures | {"bytes_per_s": figures["num_bytes"] / figures["idle"]["total_s"]}

    def _pipeline(self) -> dict[str, Any]:
        from benchmarks import pipeline

        return {
            "strict": asyncio.run(pipeline.measure(0, sigma=0.0)),
            "overlapped": asyncio.run(pipeline.measure(1, sigma=0.0)),
        }

    def _directory(self, folder: Path) -> Path:
        from benchmarks.random_model import save_random_model

        if self._model is None:
            self._model = save_random_model(self.shape, folder / "model")
        return self._model


def run(device: Device, shape: str | None, parts: tuple[str, ...], out: Path, repeats: int = 3) -> Path:
    """Measure, write OUT/bench_DEVICE.json and .md, and return the path of the table.

    Raises:
        ValueError: there is no such device, shape or part.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no GPU that torch can use here: nothing was measured (try --device cpu)")
    name = shape or DEFAULT_SHAPE[device]
    if name != "small" and name not in PUBLISHED:
        raise ValueError(f"no shape is called {name}: small, {', '.join(PUBLISHED)}")
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"no part is called {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    bench = Bench(device, name, repeats)
    with tempfile.TemporaryDirectory(prefix="rayzero-bench-") as folder:
        bench.run(parts, Path(folder))
    out.mkdir(parents=True, exist_ok=True)
    report = describe(bench)
    (out / f"bench_{device}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    table = out / f"bench_{device}.md"
    table.write_text(markdown(report), encoding="utf-8")
    return table


def describe(bench: Bench) -> dict[str, Any]:
    """All that the JSON file holds."""
    device = torch.cuda.get_device_name(0) if bench.device == "cuda" else f"{platform.machine()} CPU"
    return {
        "device": device,
        "num_devices": torch.cuda.device_count() if bench.device == "cuda" else torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "torch": torch.__version__,
        "shape": bench.shape_name,
        "num_parameters": bench.shape.num_parameters,
        "figures": bench.figures,
        "not_measured": bench.missing,
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The table, its machine first."""
    lines = [
        f"{report['device']} ({report['num_devices']}), torch {report['torch']}, {report['date']}; "
        f"random weights of the shape {report['shape']} ({report['num_parameters'] / 1e6:,.0f} M parameters), bf16",
        "",
        "| what | measured | of its limit | target |",
        "|---|---|---|---|",
    ]
    for key, what, measured, share in _rows(report["figures"]):
        lines.append(f"| {what} | {measured} | {share} | {TARGETS.get((report['shape'], key), '')} |")
    lines += [f"| {part} | not measured: {' '.join(why.split())} | | |" for part, why in report["not_measured"].items()]
    return "\n".join(lines) + "\n"


def _rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(key, what, measured, share of its limit)."""
    rows: list[tuple[str, str, str, str]] = []
    if (limits := figures.get("roofline")) is not None:
        rows.append(("", "matrix products, bf16", f"{limits['gemm_bf16_flops'] / 1e12:,.2f} TFLOP/s", ""))
        rows.append(("", "matrix products, fp32", f"{limits['gemm_fp32_flops'] / 1e12:,.2f} TFLOP/s", ""))
        rows.append(("", "memory, copy", f"{limits['copy_bytes_per_s'] / 1e9:,.0f} GB/s", ""))
    for name, one in figures.get("ways", {}).items():
        seconds = one["prepare_s"] + one["transfer_s"]
        measured = (
            f"{seconds * 1000:,.1f} ms for {one['num_bytes'] / 1e6:,.0f} MB, {one['bytes_per_s'] / 1e9:,.1f} GB/s"
        )
        rows.append((f"ways.{name}.seconds", f"weights by {one['link']} ({name}), no engine", measured, ""))
    if (head := figures.get("head")) is not None:
        overhead = f"{head['overhead_of_products']:.0%} over its bare bf16 products"
        rows.append(
            ("head.overhead", "head, fp32 logits", f"{head['tokens_per_s']:,.0f} tok/s, {overhead}", _share(head))
        )
    if (one := figures.get("attention")) is not None:
        rows.append(("", "attention, one layer, packed", f"{one['tokens_per_s']:,.0f} tok/s", _share(one)))
    if (learner := figures.get("learner")) is not None:
        for name, what in (("packed", "learner, no padding"), ("learner", "learner, prompts shared")):
            variant = learner[name]
            measured = f"{variant['trained_tokens_per_s']:,.0f} trained tok/s"
            rows.append(("learner.tokens_per_s", what, measured, f"{_share(variant)} (MFU)"))
    if (one := figures.get("rollout")) is not None:
        measured = f"{one['tokens_per_s']:,.0f} tok/s, {one['num_sequences']} sequences"
        rows.append(("", "rollout, one engine", measured, f"{one['share_of_bound']:.0%} of the decode bound"))
    if (one := figures.get("sync")) is not None:
        measured = (
            f"{one['idle']['total_s'] * 1000:,.0f} ms, {one['bytes_per_s'] / 1e9:,.1f} GB/s, paused "
            f"{one['idle']['pause_s'] * 1000:,.1f} ms"
        )
        rows.append(("", "sync, update ready to acknowledged", measured, ""))
    if (one := figures.get("pipeline")) is not None:
        strict, overlapped = one["strict"]["shared_efficiency"], one["overlapped"]["disjoint_efficiency"]
        rows.append(("", "pipeline, simulated: strict, shared cores", "", f"{strict:.1%} of 1/(1/R + 1/L)"))
        rows.append(("", "pipeline, simulated: overlapped, apart", "", f"{overlapped:.1%} of min(R, L)"))
    return rows


def _share(figures: Mapping[str, Any]) -> str:
    return f"{figures['share_of_gemm_peak']:.0%} of the products' speed"


def main() -> None:
    """Where no command line is installed."""
    parser = argparse.ArgumentParser(description="Measure every part on one device.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", help=f"small, {', '.join(PUBLISHED)}")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be given several times")
    parser.add_argument("--out", type=Path, default=Path("bench"))
    given = parser.parse_args()
    try:
        table = run(given.device, given.shape, tuple(given.part or PARTS), given.out)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print(table.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
