"""The inference service with the real engine, which dies of certain rows: `-m tests.inference.poisoned_service`.

A row whose prompt holds POISON kills the engine's own process with a signal, once the engine made some steps with it.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import psutil

from services.inference.actor import EngineActor

POISON = "POISON"
STEPS = 30
"""The engine lives so long with the row: what runs beside it may end before."""


class PoisonedEngineActor(EngineActor):
    """The real engine, which certain rows kill."""

    def _generation(self, tokens: list[int], arguments: dict[str, Any], request_id: str) -> AsyncIterator[Any]:
        outputs = super()._generation(tokens, arguments, request_id)
        return self._dying(outputs) if POISON in self._tokenizer.decode(tokens) else outputs

    async def _dying(self, outputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        death = asyncio.create_task(self._die_at(self._steps + STEPS))
        try:
            async for output in outputs:
                yield output
        finally:
            death.cancel()

    async def _die_at(self, step: int) -> None:
        while self._steps < step:  # noqa: ASYNC110 - vLLM counts them, and tells nobody
            await asyncio.sleep(0.005)
        for process in psutil.Process(os.getpid()).children(recursive=True):
            if "EngineCore" in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)


def main() -> int:
    """The service's own main function, with these actors."""
    from services.inference import __main__, app
    from tests.inference.poisoned_service import PoisonedEngineActor as Importable

    app.Engines = partial(app.Engines, actor_class=Importable)
    return __main__.main()


if __name__ == "__main__":
    sys.exit(main())
