"""Signals that a program sends itself. It is pid 1 of its namespace, which the kernel spares from signals without a
handler: a program that kills itself would go on and end well.

Only fidelity hangs on this, no promise: a program that spares itself has still to print the right answer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_HARMLESS = frozenset({0, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})


def be_mortal() -> None:
    """Let signals that would end another process end this one too. Its children inherit that and do not need it."""
    # Ray keeps Ctrl-C from its workers, and the driver a closed terminal: what they start inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    own, kill, killpg, raise_signal = os.getpid(), os.kill, os.killpg, signal.raise_signal

    def struck(number: int) -> None:
        if os.getpid() == own and number not in _HARMLESS and signal.getsignal(number) == signal.SIG_DFL:
            os._exit(128 + number)

    def wrapped(send: Callable[[int, int], None], targets: tuple[int, ...]) -> Callable[[int, int], None]:
        def sent(target: int, number: int) -> None:
            send(target, number)
            if target in targets:
                struck(number)

        return sent

    def raised(number: int) -> None:
        raise_signal(number)
        struck(number)

    vars(os).update(kill=wrapped(kill, (own, 0, -own)), killpg=wrapped(killpg, (own, 0)))
    vars(signal).update(raise_signal=raised)
