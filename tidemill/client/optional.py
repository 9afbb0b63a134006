"""Libraries that the client uses only where its caller asks for what they make."""

from importlib import import_module
from typing import Any


def require(name: str, use: str) -> Any:
    """The module `name`; ModuleNotFoundError says what needs it and how to install it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        package = name.partition(".")[0]
        raise ModuleNotFoundError(f"{use} needs {package}: pip install {package}", name=exc.name) from exc
