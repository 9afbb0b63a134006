"""`python -m services.inference`."""

import asyncio
import os
import signal
import sys

from services.inference.environment import prepare_environment
from services.inference.raywatch import EXIT_STATUS, RayLostError
from services.inference.settings import InferenceSettings
from tidemill import telemetry
from tidemill.config import CommonSettings

log = telemetry.logger(__name__)


async def run(common: CommonSettings, settings: InferenceSettings) -> None:
    """Work until SIGTERM or SIGINT."""
    from services.inference.app import Inference

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Ray installs handlers of its own when it starts: ours are put back behind it.
    service = Inference(common, settings, lambda: _on_signals(loop, stop))
    try:
        await service.run(stop)
    except RayLostError as exc:
        log.error("the Ray cluster is gone: start this service again", error=str(exc), status=EXIT_STATUS)
        telemetry.shutdown()
        # Threads and exit handlers of Ray's would wait for its head.
        os._exit(EXIT_STATUS)


def _on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def main() -> int:
    """Exit status: 0 after an orderly stop, 75 when the Ray cluster is gone and the service is to be started again."""
    common, settings = CommonSettings(), InferenceSettings()
    common.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    telemetry.setup("inference", common.telemetry_folder)
    prepare_environment(settings.engine)
    try:
        asyncio.run(run(common, settings))
    finally:
        telemetry.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
