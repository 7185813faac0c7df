"""Go by the machine's toolchain. Programs read stdin; functions are called by reflection."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

from rayzero.rewards.code.languages.base import (
    BuildError,
    Language,
    Prepared,
    ToolchainError,
    compiled,
    digest,
    encoded,
    roomy,
    shell,
    shown_folder,
)
from rayzero.rewards.code.languages.nodes import undefined_nodes
from rayzero.rewards.sandbox.client import Sandbox
from rayzero.rewards.sandbox.limits import MIB, Limits

_DRIVER = Path(__file__).parent / "drivers" / "call.go"


@cache
def toolchain() -> tuple[str, tuple[str, ...]]:
    """Path of `go`, and the folder to show with it; ToolchainError without one."""
    found = shutil.which("go", path=os.environ.get("PATH", "") + ":/usr/local/go/bin:/usr/bin")
    if found is None:
        raise ToolchainError("go is not installed (apt install golang-go)")
    real = os.path.realpath(found)
    return real, shown_folder(str(Path(real).parents[1]), ("pkg/tool", "src/runtime"), "go")


_NODES = {
    "ListNode": "\ntype ListNode struct {\n\tVal  int\n\tNext *ListNode\n}\n",
    "TreeNode": "\ntype TreeNode struct {\n\tVal         int\n\tLeft, Right *TreeNode\n}\n",
}


_PACKAGES = """
    bytes cmp container/heap container/list errors fmt maps math math/big math/bits math/rand slices sort strconv
    strings sync time unicode
"""


class Go(Language):
    """go build, no modules."""

    name = "go"
    aliases = ("golang",)
    start_memory_bytes = 32 * MIB
    address_space = False

    async def prepare(self, sandbox: Sandbox, source: str, call: str | None, build_limits: Limits) -> Prepared:
        """Compile to one executable."""
        path, roots = toolchain()
        files = {"main.go": encoded(source)}
        if call is not None:
            if not re.fullmatch(r"[A-Za-z_]\w*", call):
                raise BuildError(f"{call!r} is no Go function name")
            # The program may be `package main` without a main of its own, or with one: its main is renamed.
            program = re.sub(r"\bfunc\s+main\s*\(\s*\)", "func programMain()", source)
            program = program if re.search(r"^[ \t]*package\s", program, re.MULTILINE) else "package main\n" + program
            files = {"main.go": encoded(with_imports(program)), "call.go": _driver(call, program)}
        key = "go-" + digest(path, *files.values())
        environment = (
            "HOME={tmp} TMPDIR={tmp} GOTMPDIR={tmp} GOCACHE={tmp}/cache "
            "GO111MODULE=off GOFLAGS=-p=1 CGO_ENABLED=0 GOTELEMETRY=off"
        )
        sources = " ".join(f"{{job}}/{name}" for name in files)
        steps = shell(f"{environment} {path} build -ldflags='-s -w' -o {{tmp}}/out {sources}", "cat {tmp}/out")
        # Go compiles its standard library into an empty cache first.
        limits = replace(
            roomy(build_limits), cpu_s=4 * build_limits.cpu_s, wall_s=4 * build_limits.wall_s, address_space=False
        )
        compiled(await sandbox.build(key, steps, limits, output="main", files=files, roots=roots))
        return Prepared(argv=["{prog}/main"], mounts={"prog": key})


def with_imports(program: str) -> str:
    """LeetCode's programs have no imports: those of the standard packages that they use are added. A program with an
    import of its own stays as it is."""
    if re.search(r"^[ \t]*import\b", program, re.MULTILINE):
        return program
    used = [path for path in _PACKAGES.split() if re.search(rf"\b{path.rpartition('/')[2]}\.[A-Z]", program)]
    head = re.search(r"^[ \t]*package\s+\w+[^\n]*\n?", program, re.MULTILINE)
    if not used or head is None:
        return program
    lines = "".join(f'import "{path}"; ' for path in used)
    return f"{program[: head.end()].rstrip()}\n{lines}\n{program[head.end() :]}"


def _driver(call: str, program: str) -> bytes:
    text = _DRIVER.read_text().replace("TARGET", call)
    return (text + "".join(_NODES[name] for name in undefined_nodes(program))).encode()
