// Behind nginx, HAProxy and Caddy: every word of the table in docs/proxies.md, with the
// configurations that stand there.
//
//     node real.mjs target/debug/tidings [--quick]      # without the minute of silence
//
// Needs the three programs in the path (Debian: nginx-light, haproxy, caddy).

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { connect } from '../../client/tidings.js';
import { run } from './cell.mjs';

const [binary, ...flags] = process.argv.slice(2);
const quick = flags.includes('--quick');
const SILENCE_MS = 70_000;
const page = readFileSync(new URL('../../docs/proxies.md', import.meta.url), 'utf8');
const directory = mkdtempSync(`${tmpdir()}/tidings-proxies-`);
const children = [];
process.on('exit', () => {
  children.forEach(child => child.kill());
  rmSync(directory, { recursive: true, force: true });
});
const sleep = ms => new Promise(done => setTimeout(done, ms));

// How to start each, from a block of the page.
const programs = {
  nginx: (config, dir) => {
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(kind => `${kind}_temp_path ${dir};`).join(' ');
    const whole = `daemon off; master_process off; pid ${dir}.pid; error_log stderr; events {} http { access_log off; ${temporary} ${config} }`;
    return ['nginx', ['-e', 'stderr', '-c', write(dir, whole)]];
  },
  haproxy: (config, dir) => ['haproxy', ['-db', '-f', write(dir, config)]],
  caddy: (config, dir) => ['caddy', ['run', '--adapter', 'caddyfile', '--config', write(dir, `{\n admin off\n auto_https off\n}\n${config}`)]],
};

function write(path, text) {
  writeFileSync(`${path}.conf`, text);
  return `${path}.conf`;
}

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function until(what, check, ms = 10_000) {
  const end = Date.now() + ms;
  while (!(await check().catch(() => false))) {
    if (Date.now() > end) throw new Error(`${what}: not after ${ms} ms`);
    await sleep(50);
  }
}

const server = await (async () => {
  const child = spawn(binary, ['--listen', '127.0.0.1:0'], { stdio: ['ignore', 'ignore', 'pipe'] });
  children.push(child);
  for await (const line of createInterface(child.stderr)) {
    const [, address] = line.match(/^listening on (.*)/) ?? [];
    if (address) return child.stderr.resume(), address;
  }
})();

async function startProxy(kind, text, nth) {
  const port = await freePort();
  const config = text
    .replaceAll('127.0.0.1:8080', new URL(server).host)
    .replace('listen 80;', `listen 127.0.0.1:${port};`)
    .replace('bind :80', `bind 127.0.0.1:${port}`)
    .replace(/^:80 \{/m, `http://127.0.0.1:${port} {`);
  assert.ok(config.includes(`127.0.0.1:${port}`), 'the address was put in');
  const [program, words] = programs[kind](config, `${directory}/${kind}${nth}`);
  const child = spawn(program, words, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', piece => { said += piece; });
  const url = `http://127.0.0.1:${port}`;
  try {
    await until(program, async () => (await fetch(`${url}/healthz`)).ok);
  } catch (error) {
    throw new Error(`${error.message}\n${said}`);
  }
  return url;
}

// A request as a page of that origin would send it: the answer, once its head is there.
function ask(url, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, headers: { Origin: new URL(url).origin, ...headers }, agent: false });
    request.on('response', answer => { answer.setEncoding('utf8'); resolve({ answer, request }); });
    request.on('upgrade', (answer, socket, first) => resolve({ answer, socket, first, request }));
    request.on('error', reject);
    request.end(body);
  });
}

const upgrade = {
  Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13,
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
};
const post = (channel, text) => fetch(`${server}/channels/${channel}`, { method: 'POST', body: text });

// Collects what comes on a stream.
function collect(stream) {
  let text = '';
  const state = { has: what => text.includes(what), ended: false };
  stream.on('data', piece => { text += piece; });
  stream.on('close', () => { state.ended = true; });
  stream.on('error', () => {});
  return state;
}

async function openWebSocket(proxy, channel) {
  const { answer, socket, first } = await ask(`${proxy}/channels/${channel}`, { headers: upgrade });
  if (!socket) return answer.destroy(), undefined;
  const got = collect(socket);
  socket.unshift(first);
  // RFC 6455 5.5.2: a ping is answered, and here with nothing in it, as the server's is.
  socket.on('data', piece => { if (piece[0] === 0x89) socket.write(Buffer.from([0x8a, 0x80, 1, 2, 3, 4])); });
  return { got, end: () => socket.destroy() };
}

async function openSse(proxy, channel) {
  const { answer, request } = await ask(`${proxy}/channels/${channel}?transport=sse`);
  return { got: collect(answer), end: () => request.destroy() };
}

const arrives = async (reader, channel, text) => {
  if (!reader) return false;
  const begin = Date.now();
  await until('first bytes', async () => reader.got.has('retry:') || reader.got.has('cursor'), 2000);
  await post(channel, text);
  await until('message', async () => reader.got.has(text), 2000);
  return Date.now() - begin < 3000;
};

// The columns of the table.
const checks = {
  async 'WebSocket'(proxy, channel) {
    const reader = await openWebSocket(proxy, channel);
    const works = await arrives(reader, channel, 'by websocket');
    reader?.end();
    return works;
  },
  async 'SSE at once'(proxy, channel) {
    const reader = await openSse(proxy, channel);
    const works = await arrives(reader, channel, 'by sse');
    reader.end();
    return works;
  },
  async 'long poll'(proxy, channel) {
    const held = fetch(`${proxy}/channels/${channel}`).then(answer => answer.json());
    await until('held', async () => (await subscribers(channel)) === 1);
    await post(channel, 'by poll');
    return (await held).messages[0].data === 'by poll';
  },
  async 'publish from a page'(proxy, channel) {
    const { answer } = await ask(`${proxy}/channels/${channel}`, { method: 'POST', body: 'x'.repeat(256 * 1024) });
    answer.resume();
    return answer.statusCode === 200;
  },
  async '70 s of silence'(proxy, channel) {
    const readers = [await openSse(proxy, channel), await openWebSocket(proxy, channel)].filter(Boolean);
    await sleep(SILENCE_MS);
    await post(channel, 'after silence');
    await sleep(500);
    const works = readers.every(({ got }) => !got.ended && got.has('after silence'));
    readers.forEach(reader => reader.end());
    return works;
  },
  async 'the server sees who leaves'(proxy, channel) {
    const readers = [await openSse(proxy, channel), await openWebSocket(proxy, channel)].filter(Boolean);
    await until('attached', async () => (await subscribers(channel)) === readers.length);
    readers.forEach(reader => reader.end());
    await until('detached', async () => (await subscribers(channel)) === 0, 5000);
    return true;
  },
};

async function subscribers(channel) {
  const { channels } = await (await fetch(`${server}/channels?prefix=${channel}`)).json();
  const found = channels.find(({ name }) => name === channel)?.subscribers ?? {};
  return Object.values(found).reduce((sum, count) => sum + count, 0);
}

const [columns, , ...rows] = page.split('\n').filter(line => line.startsWith('| ')).map(line => line.split('|').slice(1, -1).map(cell => cell.trim()));
assert.deepEqual(columns.slice(1), Object.keys(checks), 'each column has its check');
const blocks = [...page.matchAll(/```(nginx|haproxy|caddy)\n# (.*)\n([^`]*)```/g)].map(([, kind, name, text]) => ({ kind, name, text }));
assert.deepEqual(blocks.map(({ name }) => name), rows.map(([name]) => name), 'each row has its configuration');

let failures = 0;
await Promise.all(blocks.map(async ({ kind, name, text }, nth) => {
  const proxy = await startProxy(kind, text, nth);
  await Promise.all(Object.entries(checks).map(async ([column, check], at) => {
    if (quick && check === checks['70 s of silence']) return;
    const channel = `real-${nth}-${at}`;
    const works = await check(proxy, channel).catch(error => (console.log(`${name}: ${column}: ${error.message}`), false));
    const want = rows[nth][at + 1] === 'yes';
    if (works !== want) failures++;
    console.log(`${works === want ? 'ok' : 'FAILED'} ${name}: ${column}: ${works ? 'works' : 'does not work'}`);
  }));
  for (const transports of [['websocket', 'sse', 'poll'], ['sse'], ['poll']]) {
    const { problem, log } = await run(
      { reader: 'client', action: 'read while it is published', server, proxy, channel: `client-${nth}-${transports}`.replaceAll(',', '.'), transports },
      connect,
    );
    if (problem) failures++;
    console.log(`${problem ? 'FAILED' : 'ok'} ${name}: the client by ${transports}: ${problem ?? 'nothing lost'}: ${log.join('; ')}`);
  }
}));
process.exit(failures ? 1 : 0);
