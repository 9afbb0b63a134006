"""Prompts as they come and answers as they finish, in an event loop: python examples/client_async.py."""

import asyncio
from collections.abc import AsyncIterator

from tidemill import AsyncClient


async def prompts() -> AsyncIterator[dict[str, object]]:
    """Rows from wherever they come from; the client asks for no more than it can send."""
    for number in range(20):
        await asyncio.sleep(0)
        yield {"custom_id": f"tide-{number}", "prompt": f"The tide at {number} o'clock", "max_tokens": 16}


async def main() -> None:
    """Submit, and print each answer when it is there."""
    async with AsyncClient() as client:
        models = await client.models()
        job = await client.submit(prompts(), model=models[0].name.removeprefix("models/"), deadline="2h")
        async for result in job.results("completion"):
            print(result.custom_id, result.text or result.error_message)


asyncio.run(main())
