"""How a ledger event lies in a store that keeps bytes: sequence, epoch, CRC-32C over all of it, then the event."""

import struct

import google_crc32c

from tidemill.internal.v1 import ledger_pb2

_HEAD = struct.Struct(">QQI")


def pack(event: ledger_pb2.LedgerEvent) -> bytes:
    """The event as it is stored."""
    record = event.SerializeToString()
    return _HEAD.pack(event.sequence, event.epoch, _checksum(event.sequence, event.epoch, record)) + record


def damage(frame: bytes, sequence: int) -> str:
    """What is wrong with the frame that should hold event `sequence`; empty when nothing is."""
    if len(frame) < _HEAD.size:
        return f"it has {len(frame)} bytes"
    found, epoch, crc32c = _HEAD.unpack_from(frame)
    if crc32c != _checksum(found, epoch, frame[_HEAD.size :]):
        return "its checksum does not match"
    return "" if found == sequence else f"it is record {found}"


def unpack(frame: bytes) -> ledger_pb2.LedgerEvent:
    """The event of a frame without damage."""
    return ledger_pb2.LedgerEvent.FromString(frame[_HEAD.size :])


def _checksum(sequence: int, epoch: int, record: bytes) -> int:
    return google_crc32c.value(sequence.to_bytes(8, "big") + epoch.to_bytes(8, "big") + record)
