"""Agents as users write them, and as they should not. Imports little: it runs in every child."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any


def ask(policy: Any, messages: list[dict[str, Any]], **more: Any) -> Any:
    """One chat completion with the standard library alone: children of tests start quickly."""
    request = urllib.request.Request(
        f"{policy.base_url}/chat/completions",
        data=json.dumps({"model": policy.model, "messages": messages, **more}).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {policy.api_key}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return json.loads(answer.read())["choices"][0]["message"]


def refusal(policy: Any, messages: list[dict[str, Any]], **more: Any) -> tuple[int, Any]:
    """Status and error of a request that is refused."""
    try:
        ask(policy, messages, **more)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]
    raise AssertionError("it was not refused")


async def honest(row: dict[str, Any], policy: Any) -> float:
    """Asks twice, and is rewarded by its row."""
    messages = list(row["prompt"])
    messages.append(ask(policy, messages))
    messages.append({"role": "user", "content": "go on"})
    await asyncio.sleep(0)
    ask(policy, messages)
    return float(row.get("worth", 1.0))


def of_its_own(row: dict[str, Any], policy: Any, *, system: str) -> None:
    """Has a prompt of its own, and leaves the judging to a rubric."""
    ask(policy, [{"role": "system", "content": system}, *row["prompt"]])


def unbounded(row: dict[str, Any], policy: Any) -> float:
    """Asks for as many turns as it gets."""
    messages, more = list(row["prompt"]), {"tools": row["tools"]} if "tools" in row else {}
    while True:
        try:
            messages += [ask(policy, messages, **more), {"role": "user", "content": "go on"}]
        except urllib.error.HTTPError as error:
            if row.get("catches"):
                return 0.25
            raise RuntimeError(json.loads(error.read())["error"]["code"]) from None


def not_at_all(row: dict[str, Any], policy: Any) -> float:
    """Never asks."""
    return 1.0


def restless(row: dict[str, Any], policy: Any) -> float:
    """Says another thing each time."""
    ask(policy, [*row["prompt"], {"role": "user", "content": os.urandom(4).hex()}])
    return 1.0


def hostile(row: dict[str, Any], policy: Any) -> Any:
    """Asks once, then does what the column `harm` says."""
    harm = row.get("harm", "")
    if harm == "hang before":
        time.sleep(3600)
    ask(policy, list(row["prompt"]))
    if harm == "loop":
        while True:
            pass
    if harm == "hang":
        time.sleep(3600)
    if harm == "exit":
        os._exit(3)
    if harm == "kill":
        os.kill(os.getpid(), 9)
    if harm == "kill parent":
        os.kill(os.getppid(), 9)
        time.sleep(3600)
    if harm == "memory":
        return len(bytearray(10 * 2**30))
    if harm == "raise":
        raise RuntimeError("planted")
    if harm == "flood":
        for _ in range(3000):
            os.write(1, b"noise " * 2000)
    if harm == "flood without end":
        while True:
            os.write(2, b"noise " * 2000)
    if harm == "nan":
        return float("nan")
    if harm == "text":
        return "good"
    if harm.startswith("leaves others"):
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        with open(row["note"], "w", encoding="ascii") as file:
            file.write(str(left.pid))
    if harm == "leaves others, and hangs":
        time.sleep(3600)
    if harm == "late" and os.fork() == 0:
        os.setsid()
        time.sleep(1.0)
        with contextlib.suppress(Exception):
            ask(policy, [*row["prompt"], {"role": "user", "content": "late"}])
        os._exit(0)
    if harm == "wrong key":
        stranger = type(policy)(base_url=policy.base_url.replace(policy.api_key, "x" * 22), api_key="x", model="m")
        status, error = refusal(stranger, list(row["prompt"]))
        assert status == 401 and "token" in error["message"]
    if harm == "sampling":
        for field, value in {"n": 4, "temperature": 0.1, "top_p": 0.5, "seed": 3, "stop": ["a"]}.items():
            status, error = refusal(policy, list(row["prompt"]), **{field: value})
            assert (status, error["param"]) == (400, field)
    return 0.5


HARMS = (
    "hang",
    "loop",
    "exit",
    "kill",
    "memory",
    "raise",
    "flood",
    "late",
    "wrong key",
    "sampling",
    "leaves others",
    "",
)


def mostly_hostile(row: dict[str, Any], policy: Any) -> float:
    """One harm or another in half of the episodes, by chance; what is left is rewarded by chance, too."""
    harm = (HARMS + len(HARMS) * ("",))[os.urandom(1)[0] % (2 * len(HARMS))]
    hostile({**row, "harm": harm, "note": os.devnull}, policy)
    return os.urandom(1)[0] / 255
