// BullMQ as its own guide has it used: Queue.add or addBulk, and Worker. `node bullmq.js JSON` prints what it measured as one line of JSON.
//
// Parameters: socket (Redis's), what (one of the functions below), bytes, seconds, and those that the function names. Producers and
// workers of a rate run in two processes, as they would be deployed and so that both have a core; latencies in one, which saves the peer
// a wake-up. Nothing is measured during the first `warmUp` seconds.
'use strict';
const { fork } = require('node:child_process');
const { Queue, Worker } = require('bullmq');
const IORedis = require('ioredis');

const NAME = 'bench';
const parameters = JSON.parse(process.argv[2]);
const payload = 'x'.repeat(parameters.bytes);
const opened = [];

const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
const nowUs = () => Number(process.hrtime.bigint() / 1000n);

function connection() {
  return new IORedis({ path: parameters.socket, maxRetriesPerRequest: null, enableAutoPipelining: Boolean(parameters.autoPipelining) });
}

function queue() {
  const made = new Queue(NAME, { connection: connection(), defaultJobOptions: { removeOnComplete: { count: 1000 } } });
  opened.push(made);
  return made;
}

function worker(concurrency, processor) {
  const made = new Worker(NAME, processor, { connection: connection(), concurrency });
  made.on('error', (error) => { throw error; });
  opened.push(made);
  return made;
}

function percentile(values, percent) {
  values.sort((a, b) => a - b);
  return values[Math.max(0, Math.ceil((values.length * percent) / 100) - 1)];
}

async function redisCpuUs(client) {
  const text = await client.info('cpu');
  const of = (name) => Number(text.match(new RegExp(`^${name}:(\\S+)`, 'm'))[1]);
  return (of('used_cpu_user') + of('used_cpu_sys')) * 1e6;
}

// Keeps `inFlight` calls of `clients` queues going until told to stop; `allowed` says how many more jobs may be added now.
function produce(clients, inFlight, batch, added, allowed) {
  let going = true;
  const queues = Array.from({ length: clients }, queue);
  const jobs = Array.from({ length: batch }, () => ({ name: 'job', data: { payload } }));
  async function keepAdding(target) {
    while (going) {
      if (allowed() < batch) {
        await sleep(1);
      } else {
        added(batch, false);
        if (batch === 1) await target.add('job', { payload });
        else await target.addBulk(jobs);
        added(batch, true);
      }
    }
  }
  const loops = Array.from({ length: inFlight }, (_, k) => keepAdding(queues[k % clients]));
  return async () => { going = false; await Promise.all(loops); };
}

// The measured window of a counter that goes on: {rate, redisCpuUs, clientCpuUs}, the last two a job. childCpuUs: of a second process.
async function windowOf(count, childCpuUs = () => 0) {
  const ownCpuUs = () => process.cpuUsage().user + process.cpuUsage().system + childCpuUs();
  const client = connection();
  await sleep(parameters.warmUp * 1000);
  const [cpuFrom, ownFrom, from, begun] = [await redisCpuUs(client), ownCpuUs(), count(), nowUs()];
  await sleep(parameters.seconds * 1000);
  const [cpuTo, ownTo, to, ended] = [await redisCpuUs(client), ownCpuUs(), count(), nowUs()];
  client.disconnect();
  const jobs = Math.max(1, to - from);
  return { rate: (to - from) / ((ended - begun) / 1e6), redisCpuUs: (cpuTo - cpuFrom) / jobs, clientCpuUs: (ownTo - ownFrom) / jobs };
}

const measured = {
  // clients, inFlight, batch: adds only.
  async add() {
    let count = 0;
    const stop = produce(parameters.clients, parameters.inFlight, parameters.batch, (n, done) => { if (done) count += n; }, () => Infinity);
    const figures = await windowOf(() => count);
    await stop();
    return figures;
  },

  // The same with `workers` Workers of `concurrency` in a second process, at most `backlog` jobs waiting.
  async lifecycle() {
    let [sent, processed, childCpuUs] = [0, 0, 0];
    const child = fork(__filename, [JSON.stringify({ ...parameters, what: 'process' })]);
    const ready = new Promise((resolve, reject) => {
      child.on('message', (message) => { if (message === 'ready') resolve(); else [processed, childCpuUs] = message; });
      child.on('exit', (status) => reject(new Error(`the workers ended with ${status}`)));
    });
    await ready;
    const stop = produce(parameters.clients, parameters.inFlight, parameters.batch, (n, done) => { if (!done) sent += n; },
      () => parameters.backlog - (sent - processed));
    const figures = await windowOf(() => processed, () => childCpuUs);
    await stop();
    child.removeAllListeners('exit');
    child.kill();
    return figures;
  },

  // What lifecycle forks.
  async process() {
    let count = 0;
    const workers = Array.from({ length: parameters.workers }, () => worker(parameters.concurrency, async () => { count += 1; }));
    await Promise.all(workers.map((one) => one.waitUntilReady()));
    process.send('ready');
    setInterval(() => process.send([count, process.cpuUsage().user + process.cpuUsage().system]), 5);
    process.on('disconnect', () => process.exit(0));
    await new Promise(() => {});
  },

  // count jobs added first, then processed by `workers` Workers of `concurrency` in this process.
  async consume() {
    const target = queue();
    const jobs = Array.from({ length: 250 }, () => ({ name: 'job', data: { payload } }));
    for (let k = 0; k < parameters.count; k += jobs.length) await target.addBulk(jobs);
    let count = 0;
    const all = Math.ceil(parameters.count / jobs.length) * jobs.length;
    const begun = nowUs();
    await new Promise((resolve) => {
      for (let k = 0; k < parameters.workers; k += 1) worker(parameters.concurrency, async () => { count += 1; if (count === all) resolve(); });
    });
    return { rate: all / ((nowUs() - begun) / 1e6) };
  },

  // count jobs, `rate` a second by the clock (0: the next when the last is completed), concurrency: from add to processor, µs.
  async latency() {
    const spans = [];
    const target = queue();
    const running = worker(parameters.concurrency, async (job) => { spans.push(nowUs() - job.data.at); });
    let completed = () => {};
    running.on('completed', () => completed());
    await running.waitUntilReady();
    await target.waitUntilReady();
    await sleep(300);
    const adds = [];
    const begun = nowUs();
    for (let k = 0; k < parameters.count; k += 1) {
      while (parameters.rate && nowUs() < begun + (k * 1e6) / parameters.rate) await sleep(1);
      const over = new Promise((resolve) => { completed = resolve; });
      adds.push(target.add('job', { payload, at: nowUs() })); // not when it was due: Node's timers are no fault of BullMQ
      if (!parameters.rate) await over;
    }
    await Promise.all(adds);
    while (spans.length < parameters.count) await sleep(5);
    const kept = spans.slice(Math.floor(spans.length / 10)); // the first tenth warms it up
    return { p50: percentile(kept, 50), p99: percentile(kept, 99) };
  },

  // count waiting jobs, added in batches: bytes of Redis's memory that each takes.
  async memory() {
    const client = connection();
    const used = async () => Number((await client.info('memory')).match(/^used_memory:(\d+)/m)[1]);
    const target = queue();
    const jobs = Array.from({ length: 250 }, () => ({ name: 'job', data: { payload } }));
    await target.addBulk(jobs); // what a queue costs once is not counted
    const before = await used();
    for (let k = 0; k < parameters.count; k += 250) await target.addBulk(jobs);
    await sleep(200);
    const after = await used();
    client.disconnect();
    return { bytes: (after - before) / parameters.count };
  },
};

measured[parameters.what]().then((figures) => {
  process.stdout.write(`${JSON.stringify(figures)}\n`, () => process.exit(0));
}).catch((error) => {
  console.error(error);
  process.exit(1);
});
