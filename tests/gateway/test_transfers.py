"""Files in, files out, through a real gateway: `ImportRows` and `ExportResults`."""

import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.gateway.row_reader import frames, numbered_rows
from tests.gateway.client import GatewayClient, refused
from tests.gateway.conftest import SETTINGS, next_model
from tests.gateway.fake_worker import FakeWorker
from tests.s3_server import OWNER, S3Server, credentials, running_s3
from tests.stores import folder_store
from tests.system.processes import PEPPER, Stack
from tidemill.digests import sha256
from tidemill.errors import TidemillError
from tidemill.keys import create_key
from tidemill.v1 import job_pb2, transfer_pb2

_pa, _pq = cast("Any", pa), cast("Any", pq)


@dataclass(frozen=True)
class Folders:
    """What the gateway may read and write, and a client of it."""

    stack: Stack
    s3: S3Server

    @property
    def incoming(self) -> Path:
        return self.stack.home / "in"

    @property
    def outgoing(self) -> Path:
        return self.stack.home / "out"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    home = tmp_path_factory.mktemp("transfers")
    for name in ("in", "out"):
        (home / name).mkdir()
    with running_s3() as s3:
        settings = {
            **SETTINGS,
            **credentials(OWNER),
            "TIDEMILL_GATEWAY_IMPORT_ROOTS": f"{(home / 'in').as_uri()},{s3.uri('in')}",
            "TIDEMILL_GATEWAY_EXPORT_ROOTS": f"{(home / 'out').as_uri()},{s3.uri('out')}",
            "TIDEMILL_GATEWAY_IMPORT_BYTES": str(8 << 20),
        }
        stack = Stack(home, settings=settings)
        stack.start("scheduler")
        stack.start("gateway")
        yield Folders(stack, s3)
        stack.close()


@pytest.fixture
async def client(folders: Folders) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(folders.stack.address_of("gateway"), folders.stack.key) as opened:
        yield opened


@pytest.fixture
async def worker(folders: Folders, tokenizer: bytes) -> AsyncIterator[FakeWorker]:
    store = folder_store(folders.stack.home / "store")
    async with FakeWorker(folders.stack.address_of("scheduler"), store, next_model(), tokenizer) as started:
        yield started


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def plain(start: int, count: int) -> list[dict[str, Any]]:
    return [{"custom_id": f"r{i}", "prompt": f"question {i}"} for i in range(start, start + count)]


async def take(client: GatewayClient, job: job_pb2.Job, uri: str, **fields: Any) -> transfer_pb2.ImportRowsResponse:
    request = transfer_pb2.ImportRowsRequest(name=job.name, uri=uri, **fields)
    return await client.unary(client.jobs.ImportRows, request)


async def give(client: GatewayClient, job: job_pb2.Job, uri: str, **fields: Any) -> transfer_pb2.ExportResultsResponse:
    request = transfer_pb2.ExportResultsRequest(name=job.name, uri=uri, **fields)
    return await client.unary(client.jobs.ExportResults, request)


def put(folders: Folders, where: str, name: str, data: bytes) -> str:
    """The URI of a new file."""
    if where == "folder":
        (folders.incoming / name).write_bytes(data)
        return (folders.incoming / name).as_uri()
    with folders.s3.files().open_output_stream(f"tidemill/in/{name}") as stream:
        stream.write(data)
    return f"s3://tidemill/in/{name}"


def parquet(rows: list[dict[str, Any]], **options: Any) -> bytes:
    sink = io.BytesIO()
    _pq.write_table(_pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


@pytest.mark.parametrize("where", ["folder", "s3"])
async def test_a_file_goes_in_and_its_answers_come_out(
    folders: Folders, client: GatewayClient, worker: FakeWorker, where: str
) -> None:
    job = await client.create(worker.model)
    uri = put(folders, where, "rows.jsonl", jsonl(plain(0, 1500)))
    first = await take(client, job, uri)
    assert (first.row_count, first.next_offset, first.duplicate_rows) == (1500, 1500, 0)
    again = await take(client, job, uri)
    assert (again.row_count, again.next_offset, again.duplicate_rows) == (1500, 1500, 1500)
    more = put(folders, where, "more.parquet", parquet(plain(1500, 500)))
    second = await take(client, job, more, start_offset=1500)
    assert (second.row_count, second.next_offset, second.duplicate_rows) == (500, 2000, 0)
    with refused("JOB_NOT_TERMINAL"):
        await give(client, job, f"{folders.outgoing.as_uri()}/early.jsonl")
    await client.seal(job.name, 2000)
    await worker.end(job.name)

    target = folders.outgoing.as_uri() if where == "folder" else "s3://tidemill/out"
    lines = await give(client, job, f"{target}/{where}/answers.jsonl")
    table = await give(client, job, f"{target}/{where}/answers.parquet")
    contents = [read_back(folders, answer.uri) for answer in (lines, table)]
    for answer, content in zip((lines, table), contents, strict=True):
        assert (answer.row_count, answer.size_bytes, answer.unchanged) == (2000, len(content), False)
        assert answer.sha256 == sha256(content).hex()
    found = [json.loads(line) for line in contents[0].splitlines()]
    assert [item["custom_id"] for item in found] == [f"r{i}" for i in range(2000)]
    assert found[7]["response"]["body"]["object"] == "text_completion"
    assert found[7]["response"]["body"]["choices"][0]["text"] == "answer to r7"
    read = _pq.read_table(io.BytesIO(contents[1]))
    assert read.column("text").to_pylist() == [f"answer to r{i}" for i in range(2000)]

    assert (await give(client, job, lines.uri)).unchanged
    with refused("FILE_EXISTS"):
        await give(client, job, lines.uri, format=transfer_pb2.TRANSFER_FORMAT_PARQUET)
    replaced = await give(client, job, lines.uri, format=transfer_pb2.TRANSFER_FORMAT_PARQUET, overwrite=True)
    assert (replaced.sha256, replaced.unchanged) == (table.sha256, False)
    assert read_back(folders, lines.uri) == contents[1]


def read_back(folders: Folders, uri: str) -> bytes:
    if uri.startswith("file://"):
        path = Path(uri.removeprefix("file://"))
        assert [item.name for item in path.parent.iterdir() if item.name.startswith(".")] == []
        return path.read_bytes()
    with folders.s3.files().open_input_stream(uri.removeprefix("s3://")) as stream:
        return bytes(stream.read())


async def test_a_bad_row_is_named_and_the_import_goes_on_behind_it(
    folders: Folders, client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    rows = plain(0, 1500)
    good = jsonl(rows)
    for bad, words, line in (
        (jsonl([*rows[:1200], {"custom_id": "x", "prompt": 5}, *rows[1201:]]), "line 1201", "1201"),
        (b"\n" + jsonl([*rows[:1200], {**rows[1200], "max_tokens": 100_000}, *rows[1201:]]), "line 1202", "1202"),
        (jsonl([*rows[:1200], rows[7], *rows[1201:]]), "line 1201", "1201"),
    ):
        with pytest.raises(TidemillError, match=words) as caught:
            await take(client, job, put(folders, "folder", "bad.jsonl", bad))
        assert caught.value.metadata["line"] == line
        # What came in whole frames before is durable, and stays.
        assert caught.value.metadata["next_offset"] == "1024"
    done = await take(client, job, put(folders, "folder", "bad.jsonl", good))
    assert (done.row_count, done.next_offset, done.duplicate_rows) == (1500, 1500, 1024)


async def test_other_rows_are_never_taken_for_those_that_are_stored(
    folders: Folders, client: GatewayClient, worker: FakeWorker
) -> None:
    job = await client.create(worker.model)
    await take(client, job, put(folders, "folder", "one.jsonl", jsonl(plain(0, 10))))
    changed = [{**row, "prompt": "another"} if row["custom_id"] == "r4" else row for row in plain(0, 20)]
    with pytest.raises(TidemillError, match="line 5: ") as caught:
        await take(client, job, put(folders, "folder", "one.jsonl", jsonl(changed)))
    assert caught.value.reason == "ROW_CONTENT_MISMATCH"
    assert caught.value.metadata["next_offset"] == "10"
    with refused("OFFSET_OUT_OF_RANGE"):
        await take(client, job, put(folders, "folder", "one.jsonl", jsonl(plain(50, 1))), start_offset=11)


def bomb() -> bytes:
    """A gibibyte of one letter in a megabyte or less."""
    return parquet([{"prompt": "a" * (1 << 20)}] * 1024, compression="zstd", use_dictionary=False)


def dictionary_bomb() -> bytes:
    """Four gibibytes of rows that share one dictionary entry: the footer declares a few megabytes."""
    return parquet([{"prompt": "b" * (4 << 20)}] * 1024, compression="zstd", use_dictionary=True)


def empty_parquet() -> bytes:
    sink = io.BytesIO()
    _pq.write_table(_pa.table({"prompt": _pa.array([], _pa.string())}), sink)
    return sink.getvalue()


def damaged() -> bytes:
    data = bytearray(parquet(plain(0, 100)))
    data[40:60] = bytes(20)
    return bytes(data)


BAD: dict[str, tuple[Any, str, str]] = {
    "empty.jsonl": (b"", "INVALID_FILE", "has no rows"),
    "not.jsonl": (b"{]\n", "INVALID_FILE", "line 1.*not JSON"),
    "binary.jsonl": (b"\xff\xfe\x00\x01", "INVALID_FILE", "line 1|UTF-16"),
    "gzip.jsonl": (b"\x1f\x8b" + b"x" * 99, "INVALID_FILE", "gzip"),
    "utf8.jsonl": (b'{"prompt": "\xff"}\n', "INVALID_FILE", "not UTF-8"),
    "long.jsonl": (b'{"prompt": "' + b"x" * (5 << 20), "INVALID_FILE", "longer than 4 MiB"),
    "endless.jsonl": (b"x" * (9 << 20), "INVALID_FILE", "at most 8388608"),
    "model.jsonl": (
        jsonl([{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m", "prompt": "x"}}]),
        "INVALID_FILE",
        "the job is for",
    ),
    "deep.jsonl": (b"[" * 100_000 + b"\n", "INVALID_FILE", "line 1|JSON array"),
    "parameter.jsonl": (jsonl([{"prompt": "x", "frobnicate": 1}]), "UNSUPPORTED_PARAMETER", "frobnicate"),
    "none.parquet": (b"PAR1", "INVALID_FILE", "not Parquet"),
    "text.parquet": (b"hello world, this is text", "INVALID_FILE", "not Parquet"),
    "footer.parquet": (b"PAR1" + b"x" * 100 + b"\xff\xff\xff\x7fPAR1", "INVALID_FILE", "footer"),
    "damaged.parquet": (damaged, "INVALID_FILE", "could not be read|can be read"),
    "columns.parquet": (lambda: parquet([{"prompt": "x", "other": 1}]), "INVALID_ARGUMENT", "'other'"),
    "wide.parquet": (lambda: parquet([{f"c{i}": 1 for i in range(100)}]), "INVALID_FILE", "columns"),
    "empty.parquet": (empty_parquet, "INVALID_FILE", "has no rows"),
    "batch.parquet": (lambda: parquet([{"url": "x", "body": "{}"}]), "INVALID_FILE", "belong into JSONL"),
    "bomb.parquet": (bomb, "INVALID_FILE", "unpacked bytes"),
    "dictionary.parquet": (dictionary_bomb, "INVALID_", "bytes|memory|too long|longer"),
}


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("dictionary.parquet", "endless.jsonl")])
def test_a_file_that_is_no_good_is_refused_by_name(name: str) -> None:
    content, reason, words = BAD[name]
    file = io.BytesIO(content if isinstance(content, bytes) else content())
    kind = name.rpartition(".")[2].upper()
    with pytest.raises(TidemillError, match=words) as caught:
        list(frames(numbered_rows(kind, file, name, "model"), name))
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize("name", ["endless.jsonl", "model.jsonl", "bomb.parquet", "dictionary.parquet"])
async def test_such_a_file_leaves_the_job_and_the_gateway_as_they_were(
    folders: Folders, client: GatewayClient, worker: FakeWorker, name: str
) -> None:
    content, reason, words = BAD[name]
    job = await client.create(worker.model)
    uri = put(folders, "folder", name, content if isinstance(content, bytes) else content())
    with pytest.raises(TidemillError, match=words) as caught:
        await take(client, job, uri)
    assert caught.value.reason.startswith(reason)
    assert (await client.get(job.name)).next_offset == 0


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("file:///etc/passwd.jsonl", "URI_NOT_ALLOWED"),
        ("{incoming}/../keys.json", "INVALID_ARGUMENT"),
        ("{incoming}/%2e%2e/keys.json", "INVALID_ARGUMENT"),
        ("http://127.0.0.1:1/rows.jsonl", "INVALID_ARGUMENT"),
        ("s3://other/in/rows.jsonl", "URI_NOT_ALLOWED"),
        ("s3://tidemill/out/rows.jsonl", "URI_NOT_ALLOWED"),
        ("s3://tidemill/in/none.jsonl", "FILE_NOT_FOUND"),
        ("{incoming}/none.jsonl", "FILE_NOT_FOUND"),
        ("{incoming}/rows.csv", "INVALID_ARGUMENT"),
    ],
)
async def test_a_place_that_is_no_good_is_refused_by_name(
    folders: Folders, client: GatewayClient, worker: FakeWorker, uri: str, reason: str
) -> None:
    job = await client.create(worker.model)
    with refused(reason):
        await take(client, job, uri.format(incoming=folders.incoming.as_uri()))


async def test_another_tenant_s_job_is_not_there(folders: Folders, client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    uri = put(folders, "folder", "rows.jsonl", jsonl(plain(0, 1)))
    key = create_key(folders.stack.home / "keys.json", PEPPER, "other")
    async with GatewayClient(folders.stack.address_of("gateway"), key) as stranger:
        for call in (take(stranger, job, uri), give(stranger, job, f"{folders.outgoing.as_uri()}/x.jsonl")):
            with refused("JOB_NOT_FOUND"):
                await call
