"""Actors as services/fleet/remote.py calls them, without Ray: over a pipe to a process, or in this process.

What is real: the actors, their processes, the handles with their deadlines and what they make of errors. Ray's part is
carrying calls; here a fork server that has imported everything carries the start, too, in a second instead of ten.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

import rayzero.services.fleet.remote
from rayzero.services.fleet.local_ray import LOOPBACK_ENVIRONMENT

LOOPBACK = "127.0.0.1"


class Reference:
    """Of a call under way, as Ray gives one."""

    def __init__(self, future: Future[Any], cancel: Callable[[], object]) -> None:
        self.future, self.cancel = lambda: future, cancel


class Method:
    """`handle.method.remote(…)`."""

    def __init__(self, call: Callable[..., Reference]) -> None:
        self.remote = call


class ActorHere:
    """An actor in this process, on the loop that runs when it is called."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self._under_way: dict[asyncio.Task[None], Future[Any]] = {}
        self._ends: list[asyncio.Task[None]] = []

    def __getattr__(self, method: str) -> Method:
        def call(*args: Any, **kwargs: Any) -> Reference:
            future: Future[Any] = Future()
            task = asyncio.create_task(self._answer(future, getattr(self.actor, method)(*args, **kwargs)))
            if method == "shutdown":
                # However long it takes: Ray would end the process, and what was open with it.
                self._ends.append(task)
                return Reference(future, lambda: None)
            self._under_way[task] = future
            task.add_done_callback(self._under_way.pop)
            return Reference(future, task.cancel)

        return Method(call)

    async def gone(self) -> None:
        """Until all that was to end it has."""
        await asyncio.gather(*self._ends)

    def kill(self) -> None:
        """Its process is the test's and goes on: the calls under way end as if it had not."""
        for task, future in list(self._under_way.items()):
            settle(future, None, ActorDiedError())
            task.cancel()

    async def _answer(self, future: Future[Any], call: Coroutine[Any, Any, Any]) -> None:
        try:
            settle(future, await call, None)
        except Exception as error:
            settle(future, None, task_error(error))


class ActorProcess:
    """An actor in a process of its own, forked from the fork server. `make` and `args` must pickle."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, make, args), daemon=True)
        self._process.start()
        theirs.close()
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._is_gone = False
        threading.Thread(target=self._listen, name="actor-answers", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Of its process."""
        return self._process.pid

    def __getattr__(self, method: str) -> Method:
        def call(*args: Any, **kwargs: Any) -> Reference:
            future: Future[Any] = Future()
            with self._lock:
                number = next(self._numbers)
                if self._is_gone:
                    future.set_exception(ActorDiedError())
                else:
                    self._waiting[number] = future
                    self._send(number, method, args, kwargs)
            return Reference(future, lambda: self._cancel(number))

        return Method(call)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join(10)

    def _cancel(self, number: int) -> None:
        with self._lock:
            self._waiting.pop(number, None)
            self._send(number, "", (), {})

    def _send(self, *message: Any) -> None:
        with contextlib.suppress(OSError):  # its death is seen by the thread that listens
            self._connection.send(message)

    def _listen(self) -> None:
        try:
            while True:
                number, result, error = self._connection.recv()
                with self._lock:
                    future = self._waiting.pop(number, None)
                if future is not None:
                    settle(future, result, None if error is None else task_error(error))
        except (EOFError, OSError):
            with self._lock:
                self._is_gone = True
                waiting, self._waiting = list(self._waiting.values()), {}
            for future in waiting:
                settle(future, None, ActorDiedError())


def serve(connection: Connection, make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """The actor's process: what placement gives one on a local Ray, and calls until the pipe ends."""
    import ray.util

    os.environ.update(LOOPBACK_ENVIRONMENT)
    ray.util.get_node_ip_address = lambda: LOOPBACK
    asyncio.run(_serve(connection, make(*args)))


async def _serve(connection: Connection, actor: Any) -> None:
    running: dict[int, asyncio.Task[None]] = {}
    while True:
        try:
            number, method, args, kwargs = await asyncio.to_thread(connection.recv)
        except (EOFError, OSError):
            os._exit(0)
        if method:
            running[number] = asyncio.create_task(_answer(connection, number, getattr(actor, method)(*args, **kwargs)))
        elif (task := running.pop(number, None)) is not None:
            task.cancel()


async def _answer(connection: Connection, number: int, call: Coroutine[Any, Any, Any]) -> None:
    result, problem = None, None
    try:
        result = await call
    except Exception as error:
        problem = error
    connection.send((number, result, problem))


def settle(future: Future[Any], result: Any, error: Exception | None) -> None:
    """An answer; none is wanted where the caller has given up."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(result) if error is None else future.set_exception(error)


def task_error(cause: BaseException) -> RayTaskError:
    """An actor's own exception, as Ray hands it on."""
    return RayTaskError("call", "", cause, ip=LOOPBACK)


def carry_calls(patch: Any) -> None:
    """Let the handles of services/fleet/remote.py do without Ray; `patch(target, name, value)` sets attributes."""
    carried = SimpleNamespace(
        put=lambda value: value, cancel=lambda reference: reference.cancel(), kill=lambda handle: handle.kill()
    )
    patch(rayzero.services.fleet.remote, "ray", carried)
