"""One way to look at a refusal."""

from collections.abc import Callable

import pytest

from tidemill.errors import TidemillError


def refusal(call: Callable[..., object], *arguments: object) -> TidemillError:
    """The TidemillError that `call` raises."""
    with pytest.raises(TidemillError) as caught:
        call(*arguments)
    return caught.value
