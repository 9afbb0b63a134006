"""Times inside the core are integers: nanoseconds since the Unix epoch."""

from google.protobuf.timestamp_pb2 import Timestamp

SECOND = 1_000_000_000


def from_timestamp(time: Timestamp) -> int:
    """Nanoseconds of a protobuf time."""
    return time.seconds * SECOND + time.nanos


def to_timestamp(time_ns: int) -> Timestamp:
    """Protobuf time of nanoseconds."""
    return Timestamp(seconds=time_ns // SECOND, nanos=time_ns % SECOND)
