// BullMQ drains no-op jobs: `node bullmq_side.mjs MODULES REDIS_PORT JOBS IN_FLIGHT` prints jobs per second.
// A job's acknowledgement is one Lua script that marks it completed and takes the next one.
import { createRequire } from "node:module";

const [modules, port, jobs, inFlight] = process.argv.slice(2);
const { Queue, Worker } = createRequire(`${modules}/`)("bullmq");
const connection = { host: "127.0.0.1", port: Number(port), maxRetriesPerRequest: null };

const queue = new Queue("nothing", { connection });
for (let start = 0; start < Number(jobs); start += 500) {
  const count = Math.min(500, Number(jobs) - start);
  await queue.addBulk(Array.from({ length: count }, (_, number) => ({ name: "nothing", data: start + number })));
}

let seen = 0;
let started = 0;
let done;
const drained = new Promise((resolve) => (done = resolve));
const worker = new Worker(
  "nothing",
  async () => {
    seen += 1;
    if (seen === 1) started = performance.now();
    if (seen === Number(jobs)) done((1000 * (seen - 1)) / (performance.now() - started));
  },
  { connection, concurrency: Number(inFlight) },
);
console.log(await drained);
await worker.close(true);
await queue.close();
process.exit(0);
