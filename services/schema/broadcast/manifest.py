"""What is about to be broadcast, as text: vLLM's own wire carries plain data alone."""

from __future__ import annotations

import json
from dataclasses import asdict

from rayzero.services.schema.weights import TensorSpec, WeightManifest


def manifest_text(manifest: WeightManifest) -> str:
    """Every field by its name."""
    return json.dumps(asdict(manifest), separators=(",", ":"))


def parse_manifest(text: str) -> WeightManifest:
    """The inverse of `manifest_text`."""
    fields = json.loads(text)
    tensors = tuple(TensorSpec(**{**spec, "shape": tuple(spec["shape"])}) for spec in fields.pop("tensors"))
    return WeightManifest(**{**fields, "tensors": tensors, "bucket_bytes": tuple(fields["bucket_bytes"])})
