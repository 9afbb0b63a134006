"""Waits with a bound."""

import asyncio


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Return once `event` is set, or after `seconds`."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return
