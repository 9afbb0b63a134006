"""`AppendRows` through a real client, gateway and scheduler."""

from tests.gateway.client import GatewayClient, prompts
from tests.gateway.fake_worker import FakeWorker


async def test_rows_are_acknowledged_and_sealed(client: GatewayClient, worker: FakeWorker) -> None:
    job = await client.create(worker.model)
    stream = await client.append(job.name)
    for start in range(0, 1000, 100):
        await stream.send(start, prompts(start, 100))
    assert await stream.finish() == 1000
    sealed = await client.seal(job.name, 1000)
    assert sealed.row_counts.total == sealed.row_counts.pending == 1000
    await worker.run()
    frames = await client.results(job.name, follow=True)
    results = [row for frame in frames for row in frame.results]
    assert [row.row_index for row in results] == list(range(1000))
    assert frames[-1].end
