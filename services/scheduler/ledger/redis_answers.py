"""What the scripts of the Redis ledger answer, in the words of this project."""

from typing import Any

from services.scheduler.ledger.base import fenced
from services.scheduler.ledger.redis_address import RedisAddress
from tidemill.errors import Reason, TidemillError


class Answers:
    """Judges answers about the ledger at one address."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address

    def expect_ok(self, answer: list[Any]) -> list[Any]:
        """What follows the `ok`; or raise what the script says instead."""
        match answer:
            case [b"ok", *rest]:
                return rest
            case [b"sequence", int(last)]:
                raise fenced(f"{self._address} ends at {last}, and this scheduler thought otherwise")
            case [b"epoch", b""]:
                raise fenced(f"{self._address} is gone; is this another Redis, or was it emptied?")
            case [b"epoch", bytes(current)]:
                raise fenced(f"epoch {current.decode()} leads in {self._address}")
            case _:
                raise self.write_failed(f"it answered {answer!r}")

    def write_failed(self, why: str) -> TidemillError:
        """Nothing was stored, or nobody knows."""
        return TidemillError(
            Reason.LEDGER_WRITE_FAILED,
            f"the ledger {self._address} could not be written ({why}); check that Redis",
            retry_after=1.0,
        )

    def unavailable(self, why: str) -> TidemillError:
        """Redis does not answer."""
        return TidemillError(
            Reason.UNAVAILABLE, f"the ledger {self._address} does not answer ({why}); check that Redis", retry_after=1.0
        )

    def corrupt(self, why: str) -> TidemillError:
        """What is there cannot be trusted."""
        return TidemillError(
            Reason.LEDGER_CORRUPT,
            f"the ledger {self._address} is not trusted: {why}; restore it from a backup",
            metadata={"ledger": self._address},
        )
