"""Rust by rustc. Programs read stdin; calls are not offered: Rust has no reflection, and a typed driver would need
crates."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from rewards.code.languages.base import Language, Prepared, ToolchainError, compiled, digest, encoded, roomy, shell
from rewards.sandbox.client import Sandbox
from rewards.sandbox.limits import Limits


@cache
def toolchain() -> tuple[str, tuple[str, ...]]:
    """Path of the real rustc (never rustup's shim, which wants a home), and the folder to show with it."""
    found = shutil.which("rustc", path=f"{os.environ.get('PATH', '')}:{Path.home()}/.cargo/bin:/usr/local/cargo/bin")
    if found is None:
        raise ToolchainError("rustc is not installed (apt install rustc)")
    asked = subprocess.run([found, "--print", "sysroot"], capture_output=True, text=True, timeout=60, check=False)
    if asked.returncode != 0:
        raise ToolchainError(f"rustc does not work: {asked.stderr.strip()[:200]}")
    root = asked.stdout.strip()
    path = f"{root}/bin/rustc"
    if shutil.which("gcc", path="/usr/bin") is None:
        raise ToolchainError("rustc needs a linker (apt install gcc)")
    return path, () if root.startswith("/usr") else (root,)


class Rust(Language):
    """rustc -O, edition 2021."""

    name = "rust"
    aliases = ("rs",)

    async def prepare(self, sandbox: Sandbox, source: str, call: str | None, build_limits: Limits) -> Prepared:
        """Compile to one executable."""
        if call is not None:
            raise ToolchainError("function calls are not offered for Rust: use stdin tests")
        path, roots = toolchain()
        files = {"main.rs": encoded(source)}
        key = "rust-" + digest(path, *files.values())
        flags = "-O --edition 2021 -A warnings -C codegen-units=1 -C linker=/usr/bin/gcc"
        command = f"TMPDIR={{tmp}} {path} {flags} -o {{tmp}}/out {{job}}/main.rs"
        outcome = await sandbox.build(
            key, shell(command, "cat {tmp}/out"), roomy(build_limits), output="main", files=files, roots=roots
        )
        compiled(outcome)
        return Prepared(argv=["{prog}/main"], mounts={"prog": key})
