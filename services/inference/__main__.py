"""`python -m services.inference`."""

import asyncio
import signal
import sys

from services.inference.environment import prepare_environment
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
    await service.run(stop)


def _on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def main() -> int:
    """Exit status: 0 after an orderly stop."""
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
