"""How far the completion feed has been reported to Dagster."""

import json
from dataclasses import asdict, dataclass


class CursorError(Exception):
    """The sensor's cursor cannot be used; the message says what to do in the UI."""


@dataclass(frozen=True)
class FeedCursor:
    """Position of the completions sensor, small enough to read in the UI.

    Attributes:
        sequence: every feed entry up to here is in Dagster.
        storage_id: Dagster events of entries above `sequence` have larger storage ids than this. A crashed tick is
            found by looking there.
        ledger_uid: the ledger whose feed is meant; empty before the first entry.
    """

    sequence: int = 0
    storage_id: int = 0
    ledger_uid: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> "FeedCursor":
        """The cursor in `text`; none or empty is the start. Raises CursorError."""
        if not text:
            return cls()
        try:
            fields = json.loads(text)
            return cls(int(fields["sequence"]), int(fields["storage_id"]), str(fields["ledger_uid"]))
        except (ValueError, TypeError, KeyError) as exc:
            raise CursorError(
                f"the sensor's cursor {text[:200]!r} is not one of ours ({exc!r}); empty it in the sensor's page, "
                "which reports everything that Dagster does not have yet",
            ) from exc

    def check_ledger(self, ledger_uid: str) -> None:
        """Raise CursorError when the feed is of another ledger than the cursor."""
        if self.ledger_uid and self.ledger_uid != ledger_uid:
            raise CursorError(
                f"the sensor's cursor belongs to ledger {self.ledger_uid}, but the gateway serves ledger "
                f"{ledger_uid or '(unnamed)'}: a position in one means nothing in the other. If the change is meant, "
                "empty the cursor in the sensor's page; jobs that are already in Dagster are not reported twice"
            )
