"""`python -m services.gateway`: the gateway process."""

import asyncio
import sys

from pydantic import ValidationError

from services.gateway.app import run
from services.gateway.settings import GatewaySettings
from tidemill import telemetry
from tidemill.config import CommonSettings
from tidemill.errors import TidemillError


def main() -> int:
    """Run until SIGTERM; 2 when the settings are wrong."""
    try:
        settings, common = GatewaySettings(), CommonSettings()  # pyright: ignore[reportCallIssue] - from the environment
    except ValidationError as exc:
        for error in exc.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in error["loc"]).upper()
            print(f"TIDEMILL_GATEWAY_{name}: {error['msg']}", file=sys.stderr)
        return 2
    telemetry.setup("gateway", common.telemetry_folder)
    try:
        asyncio.run(run(settings, common))
    except TidemillError as exc:
        print(f"gateway: {exc}", file=sys.stderr)
        return 1
    finally:
        telemetry.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
