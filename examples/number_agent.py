"""An agent on one screen, with OpenAI's SDK: it lets the model guess a number, and is the judge. As a function of a
recipe (`function: examples.number_agent:play`), or as a program (`command: [python, examples/number_agent.py]`).

rayzero train examples/number_agent.yaml
"""

import asyncio
import json
import os
import sys
from typing import Any

from openai import AsyncOpenAI

NUM_GUESSES = 4


async def play(row: dict[str, Any], policy: Any) -> float:
    """One game. `row`: the columns of the data, the prompt as messages, the answer. `policy`: where the model is."""
    async with AsyncOpenAI(base_url=policy.base_url, api_key=policy.api_key) as client:
        return await guess(row, client, policy.model)


async def guess(row: dict[str, Any], client: AsyncOpenAI, model: str) -> float:
    """1 for the number itself; without it at most one half, for how near the last guess came."""
    secret, messages, nearness = int(row["answer"]), list(row["prompt"]), 0.0
    for _ in range(NUM_GUESSES):
        reply = await client.chat.completions.create(model=model, messages=messages)
        said = reply.choices[0]
        if said.finish_reason == "length":
            break
        text = (said.message.content or "").strip()
        number = int(text) if text.isascii() and text.isdigit() else None
        if number == secret:
            return 1.0
        nearness = 0.0 if number is None else max(0.0, 1.0 - abs(number - secret) / 16)
        hint = "?" if number is None else "+" if number < secret else "-"
        # The model's own message goes back as it came: the next turn is sampled after the very tokens of this one.
        messages += [said.message, {"role": "user", "content": hint}]
    return 0.5 * nearness


async def main() -> None:
    """As a program: the row on standard input, the model in the environment, the reward in the last line."""
    async with AsyncOpenAI() as client:  # OPENAI_BASE_URL and OPENAI_API_KEY
        reward = await guess(json.load(sys.stdin), client, os.environ["OPENAI_MODEL"])
    print(json.dumps({"reward": reward}))


if __name__ == "__main__":
    asyncio.run(main())
