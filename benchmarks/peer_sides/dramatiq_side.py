"""dramatiq drains no-op messages: `dramatiq_side.py REDIS_PORT JOBS IN_FLIGHT` prints jobs per second.

One worker with as many threads as jobs in flight. Messages are fetched in batches into the worker and acknowledged one
by one by a Lua script after they ran.
"""

import logging
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from stopwatch import Stopwatch


def main(port: int, jobs: int, in_flight: int) -> None:
    broker = RedisBroker(url=f"redis://127.0.0.1:{port}/0")
    dramatiq.set_broker(broker)
    stopwatch = Stopwatch(jobs)

    @dramatiq.actor
    def nothing(_number: int) -> None:
        stopwatch.tick()

    for number in range(jobs):
        nothing.send(number)
    worker = dramatiq.Worker(broker, worker_threads=in_flight)
    worker.start()
    stopwatch.done.wait()
    worker.stop()
    print(stopwatch.jobs_per_s)


logging.disable(logging.CRITICAL)
main(*map(int, sys.argv[1:]))
