"""Rust by rustc. Programs read stdin; functions, and those of `impl Solution`, are called by a driver whose traits
follow the function's own signature."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
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
from rayzero.rewards.sandbox.limits import Limits


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
    return path, shown_folder(root, ("lib/rustlib",), "rust")


_DRIVER = Path(__file__).parent / "drivers" / "call.rs"
_COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_NODES = {
    "ListNode": "#[derive(PartialEq, Eq, Clone, Debug)]\n"
    "pub struct ListNode { pub val: i32, pub next: Option<Box<ListNode>> }\n"
    "impl ListNode { #[inline] pub fn new(val: i32) -> Self { ListNode { next: None, val } } }\n",
    "TreeNode": "#[derive(Debug, PartialEq, Eq)]\npub struct TreeNode { pub val: i32, "
    "pub left: Option<std::rc::Rc<std::cell::RefCell<TreeNode>>>, "
    "pub right: Option<std::rc::Rc<std::cell::RefCell<TreeNode>>> }\n"
    "impl TreeNode { #[inline] pub fn new(val: i32) -> Self { TreeNode { val, left: None, right: None } } }\n",
}


class Rust(Language):
    """rustc -O, edition 2021."""

    name = "rust"
    aliases = ("rs",)

    async def prepare(self, sandbox: Sandbox, source: str, call: str | None, build_limits: Limits) -> Prepared:
        """Compile to one executable."""
        path, roots = toolchain()
        files = {"main.rs": encoded(source if call is None else _calling(source, call))}
        key = "rust-" + digest(path, *files.values())
        flags = "-O --edition 2021 -A warnings -C codegen-units=1 -C linker=/usr/bin/gcc"
        command = f"TMPDIR={{tmp}} {path} {flags} -o {{tmp}}/out {{job}}/main.rs"
        outcome = await sandbox.build(
            key, shell(command, "cat {tmp}/out"), roomy(build_limits), output="main", files=files, roots=roots
        )
        compiled(outcome)
        return Prepared(argv=["{prog}/main"], mounts={"prog": key})


def _calling(source: str, call: str) -> str:
    """The program with a `main` that calls its function: by that name, or by the name in Rust's own spelling."""
    if not re.fullmatch(r"[A-Za-z_]\w*", call):
        raise BuildError(f"{call!r} is no Rust function name")
    code = _COMMENT.sub(" ", source)
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda letter: "_" + letter[1].lower(), call)
    name = call if re.search(rf"\bfn\s+{call}\b", code) else snake
    in_solution = re.search(r"\bimpl\s+Solution\b", code) is not None
    driver = _DRIVER.read_text().replace("TARGET", f"Solution::{name}" if in_solution else name)
    for node, mark in (("ListNode", "LISTS"), ("TreeNode", "TREES")):
        if re.search(rf"\b{node}\b", source):
            driver = driver.replace(f"/*{mark}\n", "").replace(f"    {mark}*/\n", "")
    missing = "".join(_NODES[node] for node in undefined_nodes(source))
    if in_solution and not re.search(r"\bstruct\s+Solution\b", code):
        missing += "struct Solution;\n"
    program = re.sub(r"\bfn\s+main\s*\(", "fn program_main(", source)
    return f"{program}\n{missing}{driver}"
