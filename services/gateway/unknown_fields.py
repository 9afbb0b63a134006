"""Fields that this build does not know: a parameter is applied or refused, never ignored."""

from google.protobuf.message import Message


def has_unknown_fields(message: Message) -> bool:
    """Whether `message` or anything below it carries a field that its type does not define."""
    # A copy without them is smaller exactly then, and this walks the message in C.
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()
