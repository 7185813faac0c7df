"""The images: what their test takes over from this machine, and what the Dockerfile gives to both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images import paths_in, pip_settings, release_of

DOCKERFILE = Path("deploy/docker/Dockerfile").read_text(encoding="utf-8")


def test_the_base_is_of_the_release_that_the_dockerfile_names() -> None:
    assert release_of(DOCKERFILE) == "bookworm"
    with pytest.raises(AssertionError, match="names no release"):
        release_of("ARG BASE_IMAGE=somewhere/python:3.11.7\n")


def test_pip_looks_in_an_image_where_it_looks_here(tmp_path: Path) -> None:
    wheels, index = tmp_path / "wheels", tmp_path / "mirror" / "simple"
    for folder in (wheels, index):
        folder.mkdir(parents=True)
    lines = [
        f":env:.find-links='{wheels}'",
        "global.find-links='/other'",
        f"global.extra-index-url='file://{index} https://an.index/simple'",
        "global.cache-dir='/root/.cache'",
        "global.constraint='/no/such/file'",
    ]
    settings = pip_settings(lines)
    assert settings == {
        "find-links": [str(wheels)],
        "extra-index-url": [f"file://{index}", "https://an.index/simple"],
        "constraint": ["/no/such/file"],
    }
    assert paths_in(settings) == {str(wheels), str(index.parent)}


def test_both_images_have_the_command_the_version_and_the_licence() -> None:
    base, reward, train = DOCKERFILE.split("\nFROM ")[1:]
    assert 'exec python -m rayzero "$@"' in base and "/usr/local/bin/rayzero" in base
    for target in (reward, train):
        assert "COPY pyproject.toml README.md LICENSE ./" in target and target.rstrip().endswith("USER rayzero")
    assert " libnuma1 " in train, "vLLM for CPUs loads it"
    let_in = Path(".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {"!pyproject.toml", "!README.md", "!LICENSE"} <= set(let_in)
