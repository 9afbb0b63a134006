"""`tidemill doctor`."""

from tidemill.cli.options import Json


def doctor(as_json: Json = False) -> None:
    """Placeholder being written."""
