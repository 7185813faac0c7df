"""Start one box without a zygote: confine this interpreter, then run a Python job in it or exec another program.

argv[1] is JSON: `{"landlock": {"readable": [...], "writable": [...]} | null, "seccomp": path | null, "limits": {...},
"exec": [argv] | null, "folder": path | null}`; argv[2] is the number of the job's socket. `folder` becomes its home
and temporary folder. Used by the Landlock backend, by bubblewrap where user namespaces do not nest, and by `unsafe`.
"""

from __future__ import annotations

import json
import os
import socket
import sys

from rayzero.rewards.sandbox.inside import confine, programs


def main() -> None:
    """Confine, then become the program."""
    plan = json.loads(sys.argv[1])
    seccomp = b""
    if plan["seccomp"]:
        with open(plan["seccomp"], "rb") as file:
            seccomp = file.read()
    channel = None
    if not plan["exec"]:
        channel = socket.socket(fileno=os.dup2(int(sys.argv[2]), 3, inheritable=False))
    if plan["folder"]:
        os.environ.update(HOME=plan["folder"], TMPDIR=plan["folder"])
        os.chdir(plan["folder"])
    os.closerange(3 if channel is None else 4, 256)
    confine.limit(plan["limits"])
    if seccomp:
        confine.no_new_privileges()
    if plan["landlock"]:
        confine.landlock(plan["landlock"]["readable"], plan["landlock"]["writable"])
    if seccomp:
        confine.install_filter(seccomp)
    if channel is None:
        os.execv(plan["exec"][0], plan["exec"])
    channel.send(b"\0")
    programs.run(channel)
