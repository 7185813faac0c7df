"""JavaScript by Node."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from rayzero.rewards.code.languages.base import BuildError, Language, Prepared, ToolchainError, encoded, shown_folder
from rayzero.rewards.code.languages.nodes import undefined_nodes
from rayzero.rewards.sandbox.client import Sandbox
from rayzero.rewards.sandbox.limits import MIB, Limits

_DRIVER = Path(__file__).parent / "drivers" / "call.js"


@cache
def node() -> tuple[str, tuple[str, ...]]:
    """Path of the interpreter and what to show with it: the file alone, or its folder where libraries of its own lie
    there. ToolchainError without one."""
    found = shutil.which("node") or shutil.which("nodejs")
    if found is None:
        raise ToolchainError("node is not installed (apt install nodejs)")
    real = os.path.realpath(found)
    if real.startswith("/usr/"):
        return real, ()
    folder = Path(real).parents[1]
    linked = subprocess.run(["ldd", real], capture_output=True, text=True, timeout=30, check=False).stdout
    libraries = [Path(os.path.realpath(path)) for path in re.findall(r"=> (/\S+)", linked)]
    if any(library.is_relative_to(folder) for library in libraries):
        return real, shown_folder(str(folder), ("lib",), "node")
    return real, (real,)


class JavaScript(Language):
    """Node, CommonJS."""

    name = "javascript"
    aliases = ("js", "node", "nodejs")
    start_cpu_s = 0.3
    start_memory_bytes = 128 * MIB
    address_space = False

    async def prepare(self, sandbox: Sandbox, source: str, call: str | None, build_limits: Limits) -> Prepared:
        """Nothing is built."""
        path, roots = node()
        # Without an /etc there is no OpenSSL configuration, and Node does not start where one cannot be read.
        command = ["/usr/bin/env", "OPENSSL_CONF=/dev/null", path, "--stack-size=8000"]
        files = {"main.js": encoded(source)}
        if call is None:
            return Prepared(argv=[*command, "{job}/main.js"], files=files, roots=roots)
        if not re.fullmatch(r"[A-Za-z_$][\w$]*", call):
            raise BuildError(f"{call!r} is no JavaScript function name")
        files["call.js"] = _DRIVER.read_bytes()
        argv = [*command, "{job}/call.js", "{job}/main.js", call, *undefined_nodes(source)]
        return Prepared(argv=argv, files=files, roots=roots)
