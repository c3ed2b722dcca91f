// The browser's own WebSocket, in conversation with a running server.
//
//     npm install && node websocket.mjs http://127.0.0.1:8080
//
// CHROMIUM names the browser (default /usr/bin/chromium).

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const server = process.argv[2] ?? 'http://127.0.0.1:8080';
const run = Date.now().toString(36);  // names the channels of this run

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const page = await browser.newPage();
// A page of the server's own origin without a policy against what follows.
await page.goto(`${server}/healthz`);

// In the page: sends each payload (text as it is, binary as an array of its bytes) and resolves with
// what came back, how it was agreed, and how it ended. It goes on after `count` frames.
const converse = ({ path, protocols, payloads, count }) => new Promise((resolve, reject) => {
  const socket = new WebSocket(location.origin.replace('http', 'ws') + path, protocols);
  const frames = [];
  socket.binaryType = 'arraybuffer';
  socket.onerror = () => reject(new Error(`no WebSocket at ${path}`));
  socket.onopen = () => payloads.forEach(payload => socket.send(typeof payload === 'string' ? payload : new Uint8Array(payload)));
  socket.onmessage = ({ data }) => {
    frames.push(typeof data === 'string' ? data : [...new Uint8Array(data)]);
    if (frames.length === count) socket.close(1000);
  };
  socket.onclose = ({ code, wasClean }) => resolve({ frames, code, wasClean, protocol: socket.protocol, extensions: socket.extensions });
});

const ended = { code: 1000, wasClean: true };
const pick = ({ code, wasClean }) => ({ code, wasClean });
const texts = ['', 'hello', 'Grüße, \u{1f600}', 'x'.repeat(126), 'é'.repeat(40_000), 'a\r\nb\nc'];
const binaries = [[], [0], Array.from({ length: 256 }, (_, n) => n), Array.from({ length: 70_000 }, (_, n) => (n * n) % 251)];

// Payloads both ways.
{
  const payloads = [...texts, ...binaries];
  const heard = await page.evaluate(converse, { path: `/channels/raw-${run}`, protocols: ['tidings.raw'], payloads, count: payloads.length });
  assert.deepEqual(heard.frames, payloads);
  assert.deepEqual([pick(heard), heard.protocol], [ended, 'tidings.raw']);
  console.log(`ok tidings.raw: ${payloads.length} payloads heard as sent; extensions agreed: ${heard.extensions || 'none'}`);
}

// Message objects out, payloads in; then again from the first cursor: nothing lost, nothing twice.
{
  const path = `/channels/plain-${run}`;
  const heard = await page.evaluate(converse, { path, protocols: [], payloads: texts, count: 1 + texts.length });
  const [first, ...messages] = heard.frames.map(text => JSON.parse(text));
  assert.equal(first.heartbeat, 25);
  assert.deepEqual(messages.map(message => message.data), texts);
  assert.deepEqual([pick(heard), heard.protocol], [ended, '']);
  for (let cut = 0; cut < messages.length; cut++) {
    const after = cut ? messages[cut - 1].id : first.cursor;
    const again = await page.evaluate(converse, { path: `${path}?after=${after}`, protocols: ['tidings.v1'], payloads: [], count: 1 + messages.length - cut });
    assert.deepEqual(again.frames.slice(1).map(text => JSON.parse(text)), messages.slice(cut), `after ${after}`);
  }
  console.log(`ok no subprotocol: ${texts.length} messages, resumed after each of them`);
}

// Commands.
{
  const payloads = [`subscribe b-${run} ref=1`, `publish b-${run} ref=2\nx`, `unsubscribe a-${run} ref=3`, 'nonsense ref=4'];
  const heard = await page.evaluate(converse, { path: `/channels/a-${run}`, protocols: ['tidings.v1', 'tidings.bearer.sesame'], payloads, count: 6 });
  const frames = heard.frames.map(text => JSON.parse(text));
  assert.deepEqual(frames.filter(frame => frame.ref).map(frame => frame.ref), ['1', '2', '3', '4']);
  assert.deepEqual(frames.filter(frame => frame.data).map(frame => frame.data), ['x']);
  assert.deepEqual([pick(heard), heard.protocol], [ended, 'tidings.v1']);
  console.log('ok tidings.v1: subscribe, publish, unsubscribe, and what is no command');
}

// The server closes, and the browser calls it clean.
{
  const heard = await page.evaluate(converse, { path: `/channels/a-${run},b-${run}`, protocols: [], payloads: ['to which?'], count: -1 });
  assert.deepEqual(pick(heard), { code: 1008, wasClean: true });
  console.log('ok the server closes with 1008, cleanly');
}

await browser.close();
