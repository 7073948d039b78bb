// Signed callbacks at the README's receiver in Node, and before the packages standardwebhooks and svix, which nobody here wrote.
'use strict';
const { test, before, after } = require('node:test');
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const packages = { standardwebhooks: require('standardwebhooks').Webhook, svix: require('svix').Webhook };

const root = path.resolve(__dirname, '../..');
const build = process.env.RINGBACK_BUILD || path.join(root, 'build');
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'rb-node-'));
const clients = {};
let server;

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function call(service, method, request) {
  return new Promise((done, failed) =>
    clients[service][method](request, { deadline: Date.now() + 60000 }, (error, answer) => (error ? failed(error) : done(answer))));
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
  const target = `127.0.0.1:${/grpc=(\d+)/.exec(fs.readFileSync(ports, 'utf8'))[1]}`;
  const definition = loader.loadSync(['queue', 'callback'].map((name) => `ringback/v1/${name}.proto`), {
    includeDirs: [path.join(root, 'proto'), '/usr/include'], longs: String, enums: String, defaults: true, oneofs: true });
  const { ringback } = grpc.loadPackageDefinition(definition);
  for (const name of ['Queue', 'Callback']) {
    clients[name] = new ringback.v1[`${name}Service`](target, grpc.credentials.createInsecure());
  }
});

after(async () => {
  Object.values(clients).forEach((client) => client.close());
  if (server && server.exitCode === null) {
    const ended = new Promise((done) => server.once('exit', done));
    server.kill('SIGTERM');
    await ended;
  }
  fs.rmSync(directory, { recursive: true, force: true });
});

async function makeRule(name, port, format) {
  const { queue } = await call('Queue', 'CreateQueue', { queue: { name: `buckets/receivers/queues/${name}`, feature: 'FEATURE_MEDIA' } });
  await call('Callback', 'UpdateCallbackRule', {
    rule: { queue: queue.name, url: `http://127.0.0.1:${port}/`, format }, updateMask: { paths: ['url', 'format'] } });
  const { secret } = await call('Callback', 'RotateSigningSecret', { queue: queue.name });
  return { queue: queue.name, secret };
}

async function sendTest(queue) {
  const { delivery } = await call('Callback', 'SendTestCallback', { queue });
  return delivery.httpStatus;
}

// Below those that connections take for their own end.
async function freePort() {
  for (let port = 12000 + process.pid % 8000; ; port++) {
    const probe = net.createServer();
    const bound = await new Promise((done) => probe.once('error', () => done(false)).listen(port, '127.0.0.1', () => done(true)));
    if (bound) {
      await new Promise((done) => probe.close(done));
      return port;
    }
  }
}

test('the receiver in the README takes what is signed and nothing else', async () => {
  const [, source] = /```js\n(\/\/ receiver\.js\n[^]*?)```/.exec(fs.readFileSync(path.join(root, 'README.md'), 'utf8'));
  const port = await freePort();
  const { queue, secret } = await makeRule('readme', port, 'CALLBACK_FORMAT_XML_SEED');
  const receiver = spawn(process.execPath, ['-e', source], { env: { ...process.env, SECRET: secret, PORT: String(port) }, stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  receiver.stdout.on('data', (part) => { out += part; });
  try {
    let status = 0;
    for (let tries = 0; status === 0 && tries < 1000; tries++) {
      status = await sendTest(queue);
      if (status === 0) await sleep(50);
    }
    assert.strictEqual(status, 204);
    for (let tries = 0; out === '' && tries < 1000; tries++) await sleep(20);
    assert.match(out, /^cb_test_\S+ <Response>/);
    for (const [sent, wanted] of [[String(Math.floor(Date.now() / 1000)), 204], ['abc', 401], ['', 401], ['-1', 401]]) {
      const mac = crypto.createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64')).update(`cb_1.${sent}.<Response/>`).digest('base64');
      const headers = { 'webhook-id': 'cb_1', 'webhook-timestamp': sent, 'webhook-signature': `v1,${mac}` };
      const answer = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: '<Response/>', headers });
      assert.strictEqual(answer.status, wanted, `the timestamp ${sent}`);
    }
    await call('Callback', 'RotateSigningSecret', { queue, overlap: { seconds: 0 } });
    assert.strictEqual(await sendTest(queue), 401);
  } finally {
    receiver.kill();
  }
});

test('standardwebhooks and svix verify JSON callbacks, and sign XML ones with the same signature', async () => {
  const seen = [];
  const receiver = http.createServer((request, answer) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => { seen.push({ headers: request.headers, body: Buffer.concat(parts).toString() }); answer.end(); });
  });
  await new Promise((done) => receiver.listen(0, '127.0.0.1', done));
  const { port } = receiver.address();
  for (const format of ['CALLBACK_FORMAT_JSON', 'CALLBACK_FORMAT_XML_SEED', 'CALLBACK_FORMAT_XML_CURRENT']) {
    const { queue, secret } = await makeRule(format.toLowerCase().replaceAll('_', '-'), port, format);
    assert.strictEqual(await sendTest(queue), 200);
    const { headers, body } = seen.pop();
    for (const Webhook of Object.values(packages)) {
      const webhook = new Webhook(secret);
      const when = new Date(Number(headers['webhook-timestamp']) * 1000);
      assert.strictEqual(webhook.sign(headers['webhook-id'], when, body), headers['webhook-signature']);
      if (format !== 'CALLBACK_FORMAT_JSON') continue;
      assert.strictEqual(webhook.verify(body, headers).EventName, 'TaskFinish');
      assert.throws(() => webhook.verify(`${body} `, headers));
    }
  }
  receiver.close();
});
