"""Jobs by model and labels, over memory and archive, a bounded number looked at in a call."""

import pytest

from services.scheduler import job_search
from tests.scheduler import builders
from tests.scheduler.service_desk import CONTEXT, running
from tidemill.internal.v1 import scheduler_service_pb2 as pb


@pytest.mark.parametrize(("batch", "most"), [(2, 4), (3, 3), (500, 5000)])
async def test_every_job_that_fits_is_found_once(monkeypatch: pytest.MonkeyPatch, batch: int, most: int):
    monkeypatch.setattr(job_search, "_BATCH", batch)
    monkeypatch.setattr(job_search, "_MOST_LOOKED_AT", most)
    async with running() as desk:
        for number in range(1, 12):
            spec = builders.spec(number)
            spec.labels["parity"] = "even" if number % 2 == 0 else "odd"
            await desk.rpc.CreateJob(pb.CreateJobRequest(spec=spec), CONTEXT)

        async def names(size: int, **fields: object) -> list[str]:
            request = pb.ListJobsRequest(tenant="acme", page_size=size, **fields)  # pyright: ignore[reportArgumentType]
            found: list[str] = []
            while True:
                page = await desk.rpc.ListJobs(request, CONTEXT)
                assert len(page.jobs) <= size
                assert bool(page.next_before_name) == page.more
                found += [job.spec.name for job in page.jobs]
                if not page.more:
                    return found
                request.before_name = page.next_before_name

        model = builders.spec().model
        even = [builders.job_name(number) for number in (10, 8, 6, 4, 2)]
        for size in (1, 2, 5, 50):
            assert await names(size, labels={"parity": "even"}) == even
            assert await names(size, labels={"parity": "even"}, model=model) == even
            assert await names(size, labels={"parity": "none"}) == []
            assert await names(size, model="another") == []
            assert len(await names(size, model=model)) == 11
