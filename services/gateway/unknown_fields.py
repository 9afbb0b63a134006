"""Fields that this build does not know: a parameter is applied or refused, never ignored."""

from google.protobuf.message import Message

from tidemill.errors import Reason, TidemillError


def has_unknown_fields(message: Message) -> bool:
    """Whether `message` or anything below it carries a field that its type does not define."""
    # A copy without them is smaller exactly then, and this walks the message in C.
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


def unknown_fields() -> TidemillError:
    """The refusal of a request that carries such fields."""
    return TidemillError(
        Reason.UNSUPPORTED_PARAMETER,
        "the request has fields that this version of the service does not know; remove them or update the service",
    )
