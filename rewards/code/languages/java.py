"""Java by the machine's JDK."""

from __future__ import annotations

import os
import re
import shutil
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

_DRIVER = Path(__file__).parent / "drivers" / "Call.java"
_NODES = {
    "ListNode": "class ListNode { int val; ListNode next; ListNode() {} ListNode(int val) { this.val = val; } "
    "ListNode(int val, ListNode next) { this.val = val; this.next = next; } }",
    "TreeNode": "class TreeNode { int val; TreeNode left, right; TreeNode() {} TreeNode(int val) { this.val = val; } "
    "TreeNode(int val, TreeNode left, TreeNode right) { this.val = val; this.left = left; this.right = right; } }",
}
_PUBLIC = re.compile(
    r"^[ \t]*public\s+(?:(?:final|abstract|sealed|strictfp)\s+)*(?:class|interface|enum|record)\s+(\w+)", re.MULTILINE
)
_CLASS = re.compile(r"\bclass\s+(\w+)")
_MAIN = re.compile(r"\bstatic\s+(?:final\s+)?void\s+main\s*\(|\bvoid\s+static\s+main\s*\(")


@cache
def jdk() -> tuple[str, tuple[str, ...]]:
    """Folder of the JDK's programs, and the folder to show with it; ToolchainError without one."""
    found = shutil.which("javac")
    if found is None:
        raise ToolchainError("javac is not installed (apt install default-jdk-headless)")
    folder = os.path.dirname(os.path.realpath(found))
    return folder, shown_folder(str(Path(folder).parent), ("lib/modules", "lib/tools.jar"), "the JDK")


class Java(Language):
    """javac, then the JVM with the serial collector and the first compiler tier kept small."""

    name = "java"
    start_cpu_s = 1.0
    start_memory_bytes = 192 * MIB
    address_space = False

    async def prepare(self, sandbox: Sandbox, source: str, call: str | None, build_limits: Limits) -> Prepared:
        """Compile to one jar."""
        folder, roots = jdk()
        public = _PUBLIC.search(source)
        own = f"{public[1] if public else 'Main'}.java"
        files = {own: encoded(_imports(source) if call else source)}
        main = "RayzeroCall" if call else _main_class(source)
        if call is not None:
            if not re.fullmatch(r"[A-Za-z_$][\w$]*", call):
                raise BuildError(f"{call!r} is no Java method name")
            files["RayzeroCall.java"] = _DRIVER.read_bytes()
            files |= {f"{name}.java": _NODES[name].encode() for name in undefined_nodes(source)}
        key = "java-" + digest(folder, main, *files, *files.values())
        sources = " ".join(f"{{job}}/{name}" for name in files)
        steps = shell(
            "mkdir {tmp}/classes",
            f"{folder}/javac -J-Xshare:auto -J-XX:+UseSerialGC -J-Xmx512m -nowarn -d {{tmp}}/classes {sources}",
            f"{folder}/jar -J-XX:+UseSerialGC -J-XX:TieredStopAtLevel=1 -cf {{tmp}}/main.jar -C {{tmp}}/classes .",
            "cat {tmp}/main.jar",
        )
        limits = roomy(self.limits(build_limits))
        compiled(await sandbox.build(key, steps, limits, output="main.jar", files=files, roots=roots))
        flags = ["-Xshare:auto", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xss64m", "-Djava.io.tmpdir={tmp}"]
        flags += ["-cp", "{prog}/main.jar", main]
        return Prepared(argv=[f"{folder}/java", *flags, *([call] if call else [])], mounts={"prog": key}, roots=roots)


def _imports(source: str) -> str:
    """LeetCode's stubs use java.util and what goes with it without importing them."""
    if re.search(r"^[ \t]*package\s", source, re.MULTILINE):
        return source
    return "".join(f"import java.{name}.*; " for name in ("util", "util.function", "util.stream", "math")) + source


def _main_class(source: str) -> str:
    """The class whose body holds `main`: the last one opened before it."""
    main = _MAIN.search(source)
    if main is None:
        raise BuildError("no static void main")
    package = re.search(r"^[ \t]*package\s+([\w.]+)\s*;", source, re.MULTILINE)
    before = [match[1] for match in _CLASS.finditer(source, 0, main.start())]
    public = _PUBLIC.search(source)
    name = public[1] if public and public[1] in before else before[-1] if before else "Main"
    return f"{package[1]}.{name}" if package else name
