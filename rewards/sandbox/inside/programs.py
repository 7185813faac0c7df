"""Run one Python job in a box that is already confined. Everything written here may be forged by the program: it
holds no verdict.

A job is two frames: its rlimits `{"CPU": seconds, ...}`, set by the supervisor, and `{"mode": "stdio" | "call" | ...,
"source": ..., "packages": folder, ...}`.

    stdio       the program is `__main__`, with the test's stdin and stdout
    call        the program is a module; one function is called with JSON arguments, the typed result is sent back
    operations  the program is a module; an instance of one of its classes is made and its methods called in turn
    serve       the program is a module whose functions another box calls over a link (see serving.py)
    check       the recipe's own test code, which calls a program in another box over a link (see testing.py)
    score       no program: a third-party scorer is given an answer as text (see task_scores.py)
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import inspect
import os
import socket
import sys
import types
from collections.abc import Callable
from typing import Any

from rayzero.rewards.sandbox.inside import confine, nodes, scope, signals, wire

_THREAD_STACK_BYTES = 8 << 20
"""As outside: the main thread's stack, which is larger here, would be every thread's."""


def run(channel: socket.socket) -> None:
    """Receive the job and do it. Never returns."""
    code = 1
    try:
        limits, job, link = _receive_job(channel)
        confine.limit(limits)
        _thread.stack_size(_THREAD_STACK_BYTES)
        signals.be_mortal()
        _reopen_stdio(null=job["mode"] != "stdio")
        scope.prepare()
        if job.get("packages"):
            sys.path.append(job["packages"])  # behind the standard library: no package may take its place
        code = _MODES[job["mode"]](job, channel, link)
    except BaseException as error:  # SystemExit and KeyboardInterrupt of the program end here as well
        code = _fault(channel, error)
    _finish(code)


def _receive_job(channel: socket.socket) -> tuple[dict[str, Any], dict[str, Any], socket.socket | None]:
    head, descriptors, _, _ = socket.recv_fds(channel, wire.HEADER.size, 1)
    if len(head) < wire.HEADER.size:
        os._exit(0)
    limits = _receive(channel, head)
    job = _receive(channel, wire._receive_exactly(channel, wire.HEADER.size))
    return limits, job, socket.socket(fileno=descriptors[0]) if descriptors else None


def _receive(channel: socket.socket, head: bytes) -> Any:
    (length,) = wire.HEADER.unpack(head)
    return wire.loads(wire._receive_exactly(channel, length))


def _reopen_stdio(null: bool) -> None:
    descriptor = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2) if null else (2,):
        os.dup2(descriptor, number)
    os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout)


def _finish(code: int) -> None:
    """What an interpreter's orderly end does for the program, without the cost of tearing the interpreter down."""
    try:
        import atexit
        import threading

        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:
        code = code or 120
    os._exit(code & 0xFF)


def _fault(channel: socket.socket, error: BaseException) -> int:
    if isinstance(error, SystemExit):
        status = error.code
        return status if isinstance(status, int) else 0 if status is None else 1
    with contextlib.suppress(BaseException):
        wire.send_frame(channel, {"error": describe(error)})
    return 1


def describe(error: BaseException) -> str:
    """`Type: message`, short, and safe against a `__str__` that raises."""
    name = type(error).__name__
    try:
        return (name + ": " + str(error))[:300]
    except BaseException:
        return name[:300]


def load(source: str, name: str) -> types.ModuleType:
    """Execute the program as module `name`."""
    module = types.ModuleType(name)
    module.__dict__["__file__"] = "/tmp/" + name + ".py"
    for own in [other for other in sys.modules if other == "__main__" or other.partition(".")[0] == "rayzero"]:
        del sys.modules[own]
    sys.modules.setdefault("__main__", module)
    sys.modules[name] = module
    sys.path[:] = [entry for entry in sys.path if not __file__.startswith(entry + "/")]
    sys.argv[:] = [module.__dict__["__file__"]]
    # Without inheriting: this file's own `from __future__ import annotations` would change what the program means.
    code = compile(source, module.__dict__["__file__"], "exec", dont_inherit=True)
    if name == "__main__":
        exec(code, module.__dict__)
        return module
    scope.offer(module, source)
    nodes.offer(module, source)
    try:
        exec(code, module.__dict__)
    except SystemExit as error:
        if error.code:  # one that ends well behind its definitions has defined them
            raise
    return module


def _stdio(job: dict[str, Any], channel: socket.socket, link: socket.socket | None) -> int:
    load(job["source"], "__main__")
    return 0


def _call(job: dict[str, Any], channel: socket.socket, link: socket.socket | None) -> int:
    send, encode, decode = wire.send_frame, wire.encode, wire.decode
    built, result = nodes.built, nodes.result
    module = load(job["source"], "solution")
    function = resolve(module, job["call"])
    given = [decode(argument) for argument in job["args"]]
    args = built(function, given, module)
    value = function(*args)
    if inspect.iscoroutine(value):
        value = asyncio.run(value)
    send(channel, {"value": encode(result(function, given, value)), "args": [_spell(argument) for argument in args]})
    return 0


def _spell(argument: Any) -> Any:
    try:
        return wire.encode(nodes.spelt(argument))
    except Exception:
        return None


def resolve(module: types.ModuleType, name: str) -> Callable[..., Any]:
    """A module function, a method of `class Solution`, or `Class.method` on a fresh instance."""
    if hasattr(module, name):
        return getattr(module, name)  # type: ignore[no-any-return]
    if "." in name:
        owner, _, method = name.partition(".")
        return getattr(getattr(module, owner.replace("()", ""))(), method)  # type: ignore[no-any-return]
    if hasattr(module, "Solution") and hasattr(module.Solution, name):
        return getattr(module.Solution(), name)  # type: ignore[no-any-return]
    raise NameError("the program defines no function " + name)


def _operations(job: dict[str, Any], channel: socket.socket, link: socket.socket | None) -> int:
    send, encode, decode = wire.send_frame, wire.encode, wire.decode
    built, result = nodes.built, nodes.result
    module = load(job["source"], "solution")
    made: Any = None
    values: list[Any] = []
    for number, (name, arguments) in enumerate(zip(job["operations"], job["args"], strict=True)):
        given = [decode(argument) for argument in arguments]
        function = getattr(made, name) if number else getattr(module, name)
        signed = function if number else types.MethodType(function.__init__, module)
        value = function(*built(signed, given, module))
        if number == 0:
            made, value = value, None
        elif inspect.iscoroutine(value):
            value = asyncio.run(value)
        values.append(encode(result(function, given, value) if number else None))
    send(channel, {"value": values})
    return 0


def _serve(job: dict[str, Any], channel: socket.socket, link: socket.socket | None) -> int:
    from rayzero.rewards.sandbox.inside import serving

    assert link is not None
    server = serving.Server(link)
    try:
        server.start(load(job["source"], "solution"))
    except BaseException as error:
        wire.send_frame(link, {"error": describe(error)})
        return 1
    server.serve()
    return 0


def _check(job: dict[str, Any], channel: socket.socket, link: socket.socket | None) -> int:
    from rayzero.rewards.sandbox.inside import testing

    assert link is not None
    verdict = testing.judge(link, job["test"], job["prelude"], job["entry_point"])
    wire.send_frame(channel, verdict)
    return 0


def _score(job: dict[str, Any], channel: socket.socket, link: socket.socket | None) -> int:
    from rayzero.rewards.sandbox.inside import task_scores

    wire.send_frame(channel, task_scores.score(job))
    os._exit(0)  # what the package leaves to be done at the end would trip the wire


_MODES = {
    "stdio": _stdio, "call": _call, "operations": _operations, "serve": _serve, "check": _check, "score": _score
}  # fmt: skip
