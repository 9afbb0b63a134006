"""`tidemill version`."""

import platform
import sys

from tidemill.cli.console import emit, emit_json
from tidemill.cli.options import Json


def version(as_json: Json = False) -> None:
    """Print the version of Tidemill and of Python."""
    from importlib import metadata

    ours, python = metadata.version("tidemill"), platform.python_version()
    if as_json:
        emit_json({"tidemill": ours, "python": python, "platform": sys.platform, "machine": platform.machine()})
    else:
        emit(f"tidemill {ours} (Python {python}, {sys.platform} {platform.machine()})")
