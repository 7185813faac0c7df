"""What is installed is what was locked: hashes behind every version, images by digest, licences in a table."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.licences import NOT_HERE, PAGE, UNSTATED, licence_of, locked, rows

LOCKS = sorted(Path("deploy/locks").glob("*.txt"))
DIGEST = "sha256:" + "0a" * 32


def versions(file: Path) -> dict[str, list[str]]:
    """Name and version of every line -> its hashes."""
    parts = re.split(r"^(?=[A-Za-z0-9])", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.split()[0]: re.findall(r"--hash=sha256:([0-9a-f]{64})\b", part) for part in parts if "==" in part}


@pytest.mark.parametrize("file", LOCKS, ids=lambda file: file.stem)
def test_every_version_is_exact_and_has_hashes(file: Path) -> None:
    found = versions(file)
    assert found and all(re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.+!]+", name) for name in found)
    assert [name for name, hashes in found.items() if not hashes] == []


def test_the_reward_image_has_a_part_of_what_every_machine_has() -> None:
    part, whole = (versions(Path(f"deploy/locks/{name}.txt")).keys() for name in ("reward", "runtime"))
    assert part <= whole and not any(name.startswith(("torch==", "vllm", "transformers==")) for name in part)


def test_images_are_installed_by_hashes_and_built_on_an_argument() -> None:
    text = Path("deploy/docker/Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install ([^&]*)", text)
    assert len(installs) == 3
    assert all("--require-hashes" in line or "torch==" in line for line in installs)
    assert re.search(r"^ARG BASE_IMAGE=\S+:3\.11\.\d+\S*$", text, re.MULTILINE)


def test_a_registry_is_asked_for_the_digest_of_every_image(tmp_path: Path) -> None:
    skopeo = tmp_path / "skopeo"
    skopeo.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\necho {DIGEST}\n')
    skopeo.chmod(0o755)
    command = ["scripts/image-digests"]
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": path})
    assert done.returncode == 0, done.stderr
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if not line.startswith("#"))
    assert set(found) == {"BASE_IMAGE", "GRAFANA_IMAGE", "PROMETHEUS_IMAGE"}
    assert all(image.endswith(f"@{DIGEST}") for image in found.values())
    assert (tmp_path / "asked").read_text().count("docker://docker.io/") == 3


def test_a_registry_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    skopeo = tmp_path / "skopeo"
    skopeo.write_text("#!/bin/sh\nexit 1\n")
    skopeo.chmod(0o755)
    command, path = ["scripts/image-digests"], f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": path})
    assert done.returncode != 0 and "its registry cannot be asked" in done.stderr


def test_the_table_of_licences_is_complete_and_as_the_packages_say() -> None:
    table = rows(PAGE.read_text(encoding="utf-8"))
    wanted = locked()
    assert {name: locks for name, (locks, _) in table.items()} == {n: ", ".join(locks) for n, locks in wanted.items()}
    for name, (_, licence) in table.items():
        assert licence == (licence_of(name) or licence), f"{name}: run python -m tests.licences"
        assert licence != UNSTATED, f"{name} says nothing of its licence: look it up and add it to STATED_ELSEWHERE"
        assert licence != NOT_HERE or set(wanted[name]) <= {"gpu", "compare", "source"}, name
