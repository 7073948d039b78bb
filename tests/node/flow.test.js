// A producer and a worker with gRPC's JavaScript client, from the .proto files as they are, against a server of the test's own.
'use strict';
const { test, before, after } = require('node:test');
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const root = path.resolve(__dirname, '../..');
const build = process.env.RINGBACK_BUILD || path.join(root, 'build');
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'rb-node-'));
const clients = {};
let server;
let target;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function call(service, method, request, deadlineMs = 60000) {
  return new Promise((done, failed) =>
    clients[service][method](request, { deadline: Date.now() + deadlineMs }, (error, answer) => (error ? failed(error) : done(answer))));
}

before(async () => {
  const ports = path.join(directory, 'ports');
  const log = fs.openSync(path.join(directory, 'log'), 'a');
  server = spawn(path.join(build, 'bin/ringbackd'), ['--listen', '127.0.0.1:0', '--http', 'off', '--data', path.join(directory, 'data'),
    '--ports-file', ports, '--callback-allow', '127.0.0.0/8'], { stdio: ['ignore', log, log] });
  for (let tries = 0; !fs.existsSync(ports); tries++) {
    assert.ok(tries < 2400 && server.exitCode === null, fs.readFileSync(path.join(directory, 'log'), 'utf8'));
    await sleep(50);
  }
  target = `127.0.0.1:${/grpc=(\d+)/.exec(fs.readFileSync(ports, 'utf8'))[1]}`;
  const definition = loader.loadSync(['queue', 'job', 'worker', 'callback'].map((name) => `ringback/v1/${name}.proto`), {
    includeDirs: [path.join(root, 'proto'), '/usr/include'], longs: String, enums: String, defaults: true, oneofs: true });
  const { ringback } = grpc.loadPackageDefinition(definition);
  for (const name of ['Queue', 'Job', 'Worker', 'Callback']) {
    clients[name] = new ringback.v1[`${name}Service`](target, grpc.credentials.createInsecure());
  }
});

after(async () => {
  Object.values(clients).forEach((client) => client.close());
  if (server && server.exitCode === null) {
    const ended = new Promise((done) => server.once('exit', done));
    server.kill('SIGTERM');
    assert.strictEqual(await ended, 0, 'ringbackd ends with 0');
  }
  fs.rmSync(directory, { recursive: true, force: true });
});

test('a producer and a worker in JavaScript, with the callback at its receiver', async () => {
  const bodies = [];
  const receiver = http.createServer((request, answer) => {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => { bodies.push({ headers: request.headers, body }); answer.end(); });
  });
  await new Promise((done) => receiver.listen(0, '127.0.0.1', done));
  const { queues } = await call('Queue', 'ActivateFeatures', { bucket: 'buckets/node' });
  assert.deepStrictEqual(queues.map((queue) => queue.name.split('/').pop()), ['queue-1', 'queue-speech-1', 'queue-doc-process-1']);
  const queue = queues[0].name;
  await call('Callback', 'UpdateCallbackRule', {
    rule: { queue, url: `http://127.0.0.1:${receiver.address().port}/cb`, state: 'CALLBACK_RULE_STATE_ON' },
    updateMask: { paths: ['url', 'state'] } });
  await call('Queue', 'PauseQueue', { name: queue });
  for (const [tag, priority] of [['Low', 0], ['High', 200], ['Middle', 5]]) {
    const { job } = await call('Job', 'SubmitJob', { queue, job: { tag, priority, operation: { xml: `<Name>${tag}</Name>` } } });
    assert.match(job.id, /^j[0-9a-f]{32}$/);
  }
  await call('Queue', 'ResumeQueue', { name: queue });
  const order = [];
  while (order.length < 3) {
    const { jobs } = await call('Worker', 'LeaseJobs', { queues: [queue], worker: 'node' });
    for (const { job, fencingToken } of jobs) {
      order.push(job.spec.tag);
      const { results } = await call('Worker', 'FinishJobs', { bucket: 'buckets/node',
        jobs: [{ lease: { jobId: job.id, fencingToken }, success: { result: { xml: '<Done/>' } } }] });
      assert.strictEqual(results[0].status.code, 0);
      assert.strictEqual(results[0].state, 'JOB_STATE_SUCCESS');
    }
  }
  assert.deepStrictEqual(order, ['High', 'Middle', 'Low']);
  for (let tries = 0; bodies.length < 3 && tries < 2400; tries++) await sleep(50);
  assert.strictEqual(bodies.length, 3);
  for (const { headers, body } of bodies) {
    assert.match(headers['content-type'], /^application\/xml/);
    assert.match(body, /<JobsDetail><Code>Success<\/Code>/);
  }
  receiver.close();
});

test('a worker that asks before there is a job gets it when it comes', async () => {
  const { queue } = await call('Queue', 'CreateQueue', { queue: { name: 'buckets/node/queues/wait', feature: 'FEATURE_SPEECH' } });
  const leased = call('Worker', 'LeaseJobs', { queues: [queue.name], worker: 'node' });
  await sleep(200);
  const { job } = await call('Job', 'SubmitJob', { queue: queue.name, job: { tag: 'T' } });
  assert.strictEqual((await leased).jobs[0].job.id, job.id);
});

test('a worker over the Work stream gets jobs by its credit, and finishes them in batches', async () => {
  const { queue } = await call('Queue', 'CreateQueue', { queue: { name: 'buckets/node/queues/stream', feature: 'FEATURE_MEDIA' } });
  const stream = clients.Worker.Work();
  const ended = new Promise((done, failed) => { stream.on('end', done); stream.on('error', failed); });
  const seen = [];
  const results = [];
  stream.on('data', (message) => {
    results.push(...message.finished.map(({ result }) => result.state));
    if (message.jobs.length > 0) {
      seen.push(...message.jobs.map(({ job }) => job.id));
      stream.write({ acknowledgedSequence: message.sequence, credit: message.jobs.length,
        finished: message.jobs.map(({ job, fencingToken }) => ({ lease: { jobId: job.id, fencingToken }, success: {} })) });
    }
    if (results.length === 50) stream.end();
  });
  stream.write({ open: { queues: [queue.name], worker: 'node' }, credit: 10 });
  const { results: submitted } = await call('Job', 'SubmitJobs', { queue: queue.name, jobs: Array(50).fill({ tag: 'T' }) });
  await ended;
  assert.deepStrictEqual(seen, submitted.map(({ jobId }) => jobId));
  assert.ok(results.every((state) => state === 'JOB_STATE_SUCCESS'));
});

test('an empty long poll is answered before its deadline', async () => {
  const { queue } = await call('Queue', 'CreateQueue', { queue: { name: 'buckets/node/queues/empty', feature: 'FEATURE_MEDIA' } });
  const { jobs } = await call('Worker', 'LeaseJobs', { queues: [queue.name] }, 8000);
  assert.deepStrictEqual(jobs, []);
});

test('a watch streams what happens to a job', async () => {
  const { queue } = await call('Queue', 'CreateQueue', { queue: { name: 'buckets/node/queues/watch', feature: 'FEATURE_DOCUMENT' } });
  const stream = clients.Job.WatchJobs({ bucket: 'buckets/node', queue: queue.name });
  stream.on('error', () => {});
  const states = [];
  const begun = new Promise((done) => stream.once('data', done));
  stream.on('data', (message) => message.events.forEach((event) => states.push(event.state)));
  await begun;
  const { job } = await call('Job', 'SubmitJob', { queue: queue.name, job: { tag: 'T' } });
  await call('Job', 'CancelJobs', { bucket: 'buckets/node', jobIds: [job.id] });
  for (let tries = 0; states.length < 2 && tries < 2400; tries++) await sleep(50);
  stream.cancel();
  assert.deepStrictEqual(states, ['JOB_STATE_SUBMITTED', 'JOB_STATE_CANCEL']);
});

test('an error carries its code and its details', async () => {
  await assert.rejects(call('Queue', 'GetQueue', { name: 'nonsense' }), (error) => {
    assert.strictEqual(error.code, grpc.status.INVALID_ARGUMENT);
    assert.ok(error.metadata.get('grpc-status-details-bin').length === 1);
    return true;
  });
  await assert.rejects(call('Queue', 'GetQueue', { name: 'buckets/node/queues/none' }), { code: grpc.status.NOT_FOUND });
});
