"""taskiq drains no-op tasks: `taskiq_side.py REDIS_PORT JOBS IN_FLIGHT` prints jobs per second.

The stream broker with a consumer group, its only one that acknowledges: XREADGROUP in batches of 100, XACK for each
task after it ran. No results are kept.
"""

import asyncio
import logging
import os
import sys

from stopwatch import Stopwatch
from taskiq.acks import AcknowledgeType
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker


async def main(port: int, jobs: int, in_flight: int) -> None:
    broker = RedisStreamBroker(f"redis://127.0.0.1:{port}/0", consumer_id="0")
    stopwatch = Stopwatch(jobs)

    @broker.task
    async def nothing(_number: int) -> None:
        stopwatch.tick()

    broker.is_worker_process = True
    await broker.startup()
    for number in range(jobs):
        await nothing.kiq(number)
    receiver = asyncio.create_task(
        run_receiver_task(broker, max_async_tasks=in_flight, ack_time=AcknowledgeType.WHEN_EXECUTED)
    )
    await asyncio.to_thread(stopwatch.done.wait)
    print(stopwatch.jobs_per_s, flush=True)
    # A cancelled receiver goes on waiting for its prefetcher.
    os._exit(0 if not receiver.done() else 1)


logging.disable(logging.CRITICAL)
asyncio.run(main(*map(int, sys.argv[1:])))
