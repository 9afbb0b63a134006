"""Between wire messages and the core's records."""

from services.scheduler.core.records import Part, Segment, Tally
from tidemill import rowset
from tidemill.internal.v1 import records_pb2


def tally_of(message: records_pb2.RowTally) -> Tally:
    """Record of a tally."""
    return Tally(
        message.succeeded,
        message.failed,
        message.cancelled,
        message.expired,
        message.prompt_tokens,
        message.output_tokens,
        message.cached_tokens,
    )


def tally_message(tally: Tally) -> records_pb2.RowTally:
    """Message of a tally."""
    return records_pb2.RowTally(
        succeeded=tally.succeeded,
        failed=tally.failed,
        cancelled=tally.cancelled,
        expired=tally.expired,
        prompt_tokens=tally.prompt_tokens,
        output_tokens=tally.output_tokens,
        cached_tokens=tally.cached_tokens,
    )


def part_of(ref: records_pb2.PartRef) -> Part:
    """Record of a part."""
    return Part(
        key=ref.key,
        chunk_start=ref.chunk_start,
        chunk_rows=ref.chunk_rows,
        fence=ref.fence,
        part_number=ref.part_number,
        rows=rowset.from_bytes(ref.row_bitmap),
        sha256=ref.sha256,
        tally=tally_of(ref.tally),
        first_result_offset=ref.first_result_offset,
        row_count=ref.row_count,
        engine_record=ref.engine_record,
        equal_answers=ref.equal_answers,
    )


def part_message(part: Part) -> records_pb2.PartRef:
    """Message of a part."""
    return records_pb2.PartRef(
        key=part.key,
        chunk_start=part.chunk_start,
        chunk_rows=part.chunk_rows,
        fence=part.fence,
        part_number=part.part_number,
        row_bitmap=rowset.to_bytes(part.rows, part.chunk_rows),
        sha256=part.sha256,
        tally=tally_message(part.tally),
        first_result_offset=part.first_result_offset,
        row_count=part.row_count,
        engine_record=part.engine_record,
        equal_answers=part.equal_answers,
    )


def segment_message(segment: Segment) -> records_pb2.SegmentRef:
    """Message of a segment."""
    return records_pb2.SegmentRef(
        key=segment.key,
        start=segment.start,
        count=segment.count,
        sha256=segment.sha256,
        size_bytes=segment.size_bytes,
    )
