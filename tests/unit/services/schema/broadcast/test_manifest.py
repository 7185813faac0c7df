"""A manifest as text is the same manifest."""

from __future__ import annotations

import pytest

from rayzero.services.schema.broadcast.manifest import manifest_text, parse_manifest
from rayzero.services.schema.weights import TensorSpec, WeightManifest


@pytest.mark.parametrize("scaling", [None, 0.1 + 0.2])
def test_there_and_back(scaling: float | None) -> None:
    specs = tuple(
        TensorSpec(
            name=f"{n}.é",
            dtype="bfloat16",
            shape=shape,
            bucket=n,
            offset_bytes=64,
            num_bytes=2**40,
            checksum="0f",
        )
        for n, shape in enumerate([(), (3,), (4, 5)])
    )
    manifest = WeightManifest(policy_version=7, tensors=specs, bucket_bytes=(1, 2**40), adapter_scaling=scaling)
    assert parse_manifest(manifest_text(manifest)) == manifest


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"tensors": [{"shape": []}]}', '{"tensors": [], "code": 1}'])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_manifest(text)
