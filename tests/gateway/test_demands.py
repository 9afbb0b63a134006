"""What the scheduler learns of a segment's work, without processes."""

from pathlib import Path

from services.gateway.buffer import RowBuffer
from services.gateway.frames import Frame, FrameChecker
from services.gateway.input_segments import write_input_segment
from services.gateway.prepared import Prepared
from services.gateway.prompt_length import PromptLengths
from tests.gateway.client import prompts
from tidemill.internal.v1 import records_pb2
from tidemill.names import JobName, new_job_id
from tidemill.store import open_store
from tidemill.v1 import job_service_pb2, model_service_pb2, row_pb2


def segments(
    tmp_path: Path, rows: list[row_pb2.Row], max_rows: int, max_tokens: int | None = None
) -> list[records_pb2.SegmentRef]:
    """The segments that a frame of `rows` is cut into."""
    store = open_store(tmp_path.as_uri())
    tasks = [model_service_pb2.TASK_GENERATE, model_service_pb2.TASK_SCORE]
    report = records_pb2.ModelReport(model="m", has_chat_template=True, tasks=tasks)
    checker = FrameChecker(PromptLengths(store), report, row_pb2.SamplingParams(max_tokens=max_tokens))
    message = job_service_pb2.AppendRowsRequest(rows=rows)
    prepared = checker.prepare(Frame(0, message.rows, message))
    assert isinstance(prepared, Prepared)
    buffer = RowBuffer(max_rows, 1 << 20)
    buffer.add(prepared)
    job, found = JobName("dev", new_job_id()), list[records_pb2.SegmentRef]()
    while len(buffer):
        found.append(write_input_segment(store, job, 1, buffer.cut()))
    return found


def test_bytes_of_text_and_limits_of_answers_are_summed_by_segment(tmp_path: Path) -> None:
    rows = prompts(0, 2, "\u00e9")
    rows[1].sampling.max_tokens = 3
    chat = row_pb2.Row(custom_id="chat")
    chat.chat.messages.add(role="system", content="abc")
    chat.chat.messages.add(role="user", content="\u00e9")
    found = segments(tmp_path, [*rows, chat], 2, max_tokens=10)
    assert [(item.text_bytes, item.max_output_tokens) for item in found] == [(4 + 4, 10 + 3), (5, 10)]


def test_rows_without_a_limit_count_as_zero(tmp_path: Path) -> None:
    rows = prompts(0, 3)
    rows[0].sampling.max_tokens = 7
    (found,) = segments(tmp_path, rows, 10)
    assert found.max_output_tokens == 7


def test_every_answer_counts(tmp_path: Path) -> None:
    rows = prompts(0, 2)
    rows[0].sampling.n = 4
    rows[0].sampling.max_tokens = 7
    rows[1].sampling.n = 2
    (found,) = segments(tmp_path, rows, 10, max_tokens=5)
    assert found.max_output_tokens == 4 * 7 + 2 * 5


def test_rows_that_generate_nothing_have_no_limit_of_their_own(tmp_path: Path) -> None:
    row = row_pb2.Row(custom_id="s", score=row_pb2.ScoreInput(query="ab", document="c"))
    (found,) = segments(tmp_path, [row], 10, max_tokens=5)
    assert (found.text_bytes, found.max_output_tokens) == (3, 0)


def test_rows_that_only_shared_engines_answer_are_counted(tmp_path: Path) -> None:
    rows = prompts(0, 5)
    rows[0].sampling.n = 2
    rows[1].sampling.n = 1
    rows[2].sampling.logprobs = 0
    rows[3].sampling.json_schema = "{}"
    score = row_pb2.Row(custom_id="s", score=row_pb2.ScoreInput(query="ab", document="c"))
    (found,) = segments(tmp_path, [*rows, score], 10)
    assert found.shared_only_rows == 4
