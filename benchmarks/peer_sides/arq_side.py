"""arq drains no-op jobs: `arq_side.py REDIS_PORT JOBS IN_FLIGHT` prints jobs per second.

Polled every 10 ms instead of the default half second, which would bound the rate by itself. A job's acknowledgement
is one transaction that stores its result and removes it from the queue.
"""

import asyncio
import logging
import sys
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func
from stopwatch import Stopwatch


async def main(port: int, jobs: int, in_flight: int) -> None:
    pool = await create_pool(RedisSettings(port=port))
    for number in range(jobs):
        await pool.enqueue_job("nothing", number)
    stopwatch = Stopwatch(jobs)

    async def nothing(_context: dict[Any, Any], _number: int) -> None:
        stopwatch.tick()

    functions = [func(nothing, name="nothing")]
    worker = Worker(functions, redis_pool=pool, burst=True, max_jobs=in_flight, poll_delay=0.01, handle_signals=False)
    await worker.async_run()
    print(stopwatch.jobs_per_s)


logging.disable(logging.CRITICAL)
asyncio.run(main(*map(int, sys.argv[1:])))
