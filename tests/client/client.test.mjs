// The browser client against a server made of stubs, with virtual time: what no proxy shows.
//
//     node --test tests/client/client.test.mjs
//
// Node 20.4 or later, for its clock can be set.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { connect } from '../../client/tidings.js';

const source = readFileSync(new URL('../../client/tidings.js', import.meta.url), 'utf8');
const page = readFileSync(new URL('../../src/pages/viewer.html', import.meta.url), 'utf8');

test('the client fits into 4 KiB as it is served, and with the page into 12', () => {
  const served = source.replace(/^ *\/\/.*\n/gm, '').replace(/('[^']*'|`[^`]*`)|(?<![\w#]) +| +(?![\w#])|(?<=[,;{\n])\n/g, '$1');
  const [client, viewer] = [served, page].map(text => gzipSync(text, { level: 9 }).length);
  assert.ok(client <= 4096, `${client} bytes`);
  assert.ok(client + viewer <= 12 * 1024, `${client} + ${viewer} bytes`);
});

// The stubs: each request and each WebSocket waits in `asked` until the test answers it.
let asked, sockets, random;

class FakeSocket {
  sent = [];
  constructor(url, protocols) {
    Object.assign(this, { url: new URL(url), protocols });
    sockets.push(this);
  }
  send(data) { this.sent.push(data); }
  close() { this.isClosed = true; }
  bring(piece) { this.onmessage({ data: JSON.stringify(piece) }); }
}

function fakeFetch(url, init = {}) {
  return new Promise((resolve, reject) => {
    const { signal } = init;
    if (signal?.aborted) return reject(signal.reason);
    signal?.addEventListener('abort', () => reject(signal.reason));
    const request = { url: new URL(url), init, fail: () => reject(new TypeError('network')) };
    request.answer = (body, { status = 200, headers } = {}) => resolve(new Response(body === null ? null : typeof body === 'object' && !(body instanceof ReadableStream) ? JSON.stringify(body) : body, { status, headers }));
    request.stream = () => {
      let controller;
      const body = new ReadableStream({ start: it => { controller = it; } });
      signal?.addEventListener('abort', () => { try { controller.error(signal.reason); } catch { /* over */ } });
      resolve(new Response(body));
      const encoder = new TextEncoder();
      return { bring: text => controller.enqueue(encoder.encode(text)), end: () => controller.close(), cut: () => controller.error(new TypeError('terminated')) };
    };
    asked.push(request);
  });
}

beforeEach(() => {
  asked = [];
  sockets = [];
  random = 0.5;
  mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'], now: 1_000_000 });
  mock.method(Math, 'random', () => random);
  mock.method(globalThis, 'fetch', fakeFetch);
  globalThis.WebSocket = FakeSocket;
});
afterEach(() => {
  clients.splice(0).forEach(client => client.close());
  mock.timers.reset();
  mock.restoreAll();
});

const settle = async () => { for (let n = 0; n < 40; n++) await new Promise(setImmediate); };
// Second by second, as the client's own clock ticks.
async function pass(ms) {
  for (let left = ms; left > 0; left -= 1000) {
    mock.timers.tick(Math.min(left, 1000));
    await settle();
  }
}

// A WebSocket that was open ends.
function end(code) {
  last(sockets).bring({ cursor: '7-1', heartbeat: 25 });
  setImmediate(() => last(sockets).onclose({ code, reason: 'no' }));
}

const clients = [];
function open(options) {
  const client = connect('http://server:8080', { channels: 'a', ...options });
  const heard = [];
  for (const type of ['message', 'gap', 'state', 'transport', 'error'])
    client.addEventListener(type, ({ detail }) => heard.push([type, type === 'message' ? detail.data : type === 'gap' ? detail.through : type === 'error' ? detail.message : detail]));
  clients.push(client);
  return { client, heard, only: kind => heard.filter(([type]) => type === kind).map(([, what]) => what) };
}
const message = (seq, more) => ({ id: `7-${seq}`, channel: 'a', time: 0, data: `m${seq}`, ...more });
const gap = (after, through, cursor, reason = 'evicted') => ({ gap: { after: `7-${after}`, through: `7-${through}`, cursor: `7-${cursor}`, reason } });
const last = list => list.at(-1);
const posts = () => asked.filter(({ init }) => init.method === 'POST');

test('a WebSocket that says nothing gives way to SSE, that to a poll', async () => {
  const { client, only } = open({ after: '7-0' });
  await settle();
  assert.equal(sockets[0].url.href, 'ws://server:8080/channels/a?transport=websocket&after=7-0');
  assert.deepEqual(sockets[0].protocols, ['tidings.v1']);
  await pass(5000);
  assert.ok(sockets[0].isClosed);
  const stream = asked[0].stream();
  assert.equal(asked[0].url.search, '?transport=sse&format=json&after=7-0');
  stream.bring('retry: 3000\n\n');  // no cursor yet
  await pass(6000);
  assert.equal(asked[1].url.search, '?transport=poll&wait=0&after=7-0');
  asked[1].answer({ cursor: '7-2', messages: [message(1), message(2)] });
  await settle();
  assert.deepEqual([client.transport, client.cursor, only('message')], ['poll', '7-2', ['m1', 'm2']]);
  assert.equal(asked[2].url.search, '?transport=poll&wait=25&after=7-2');
});

test('a better transport is tried beside the one that delivers, and takes over without loss', async () => {
  const { only, client } = open({ after: '7-0' });
  await settle();
  sockets[0].onclose({ code: 1006 });
  await settle();
  asked.shift().fail();  // asked why, for browsers do not say
  await settle();
  const stream = asked[0].stream();
  stream.bring('retry: 3000\nid: 7-0\n\n');
  await pass(11_000);
  assert.equal(sockets.length, 2);
  assert.equal(sockets[1].url.searchParams.get('after'), '7-0');
  stream.bring(`id: 7-1\ndata: ${JSON.stringify(message(1))}\n\n`);
  await settle();
  sockets[1].bring({ cursor: '7-0', heartbeat: 25 });
  sockets[1].bring(message(1));
  sockets[1].bring(message(2));
  await settle();
  assert.deepEqual(only('message'), ['m1', 'm2']);
  assert.deepEqual(only('transport'), ['sse', 'websocket']);
  assert.equal(client.cursor, '7-2');
  assert.ok(asked[0].init.signal.aborted);
});

test('what is killed as soon as it opens counts as failed; the next look up comes later each time', async () => {
  open({ after: '7-0' });
  const lookUps = [];
  for (let n = 0; n < 4; n++) {
    for (let waited = 0; sockets.length <= n; waited += 1000) {
      assert.ok(waited < 300_000);
      await pass(1000);
      if (last(asked)?.isUp && !last(asked).init.signal.aborted) last(asked).isUp.bring(':\n\n');
      last(asked)?.isUp || asked.length && (last(asked).isUp = last(asked).stream()).bring('retry: 1\nid: 7-0\n\n');
      await settle();
    }
    lookUps.push(Date.now());
    last(sockets).bring({ cursor: '7-0', heartbeat: 25 });
    await settle();
    last(sockets).onclose({ code: 1006 });
    await settle();
    (last(asked).isUp = last(asked).stream()).bring('retry: 1\nid: 7-0\n\n');
    await settle();
  }
  const waits = lookUps.slice(1).map((at, n) => at - lookUps[n]);
  assert.ok(waits[0] >= 20_000 && waits[1] >= 40_000 && waits[2] >= 80_000, `${waits}`);
});

test('what opens, brings its first bytes and nothing more, is taken ever less often', async () => {
  const { only } = open({ transports: ['sse', 'poll'], after: '7-0' });
  const streams = () => asked.filter(({ url }) => url.searchParams.get('transport') === 'sse');
  let seen = 0;
  for (let second = 0; second < 870; second++) {
    await pass(1000);
    for (; seen < streams().length; seen++) streams()[seen].stream().bring('retry: 1\nid: 7-0\n\n');
    if (last(asked).url.searchParams.has('wait')) last(asked).answer({ cursor: '7-0', messages: [] });
    await settle();
  }
  // 45 s each to be found, and 20, 40, 80, 160, 320 s between.
  assert.deepEqual(only('transport'), 'sse,poll,sse,poll,sse,poll,sse,poll,sse,poll,sse'.split(','));
});

test('three cuts in a row, none after half a minute of health: the next transport is tried', async () => {
  const { only } = open({ transports: ['websocket', 'poll'], after: '7-0' });
  for (let cut = 0; cut < 4; cut++) {
    while (sockets.length <= cut) await pass(1000);
    sockets[cut].bring({ cursor: '7-0', heartbeat: 25 });
    await pass(10_000);
    assert.equal(asked.length, 0);
    sockets[cut].onclose({ code: 1006 });
    await settle();
  }
  last(asked).answer({ cursor: '7-0', messages: [] });
  await settle();
  assert.deepEqual(only('transport'), ['websocket', 'websocket', 'websocket', 'websocket', 'poll']);
});

test('the link ends while a better one is on its way: that one decides, and there is no third', async () => {
  const { client, only } = open({ transports: ['websocket', 'sse'], after: '7-0' });
  await settle();
  sockets[0].onclose({ code: 1006 });
  await settle();
  asked[0].fail();
  await settle();
  const stream = asked[1].stream();
  stream.bring('retry: 3000\nid: 7-0\n\n');
  await pass(11_000);
  assert.equal(sockets.length, 2);
  stream.cut();
  await pass(4000);
  assert.deepEqual([sockets.length, asked.length, client.state], [2, 2, 'connecting']);
  sockets[1].bring({ cursor: '7-0', heartbeat: 25 });
  await pass(10_000);
  assert.deepEqual([sockets.length, asked.length, client.state, client.transport], [2, 2, 'open', 'websocket']);
  client.close();
  assert.ok(sockets[1].isClosed);
  sockets[1].bring(message(1));
  assert.deepEqual([only('message'), client.state], [[], 'closed']);
});

test('the first delay is up to a second, then twice that, up to 30 s, and good health ends it', async () => {
  const { client, only } = open({ transports: ['websocket'] });
  random = 0.9999;
  await settle();
  const waits = [];
  for (let n = 0; n < 7; n++) {
    last(sockets).bring({ cursor: '7-1', heartbeat: 25 });
    await settle();
    const before = sockets.length, at = Date.now();
    last(sockets).onclose({ code: 1006 });
    await settle();
    while (sockets.length === before) { mock.timers.tick(100); await settle(); }
    waits.push(Math.round((Date.now() - at) / 1000));
  }
  assert.deepEqual(waits, [1, 2, 4, 8, 16, 30, 30]);
  last(sockets).bring({ cursor: '7-1', heartbeat: 1000 });
  await pass(31_000);
  last(sockets).bring({ cursor: '7-2' });
  await pass(1000);
  const at = Date.now(), before = sockets.length;
  last(sockets).onclose({ code: 1006 });
  await settle();
  while (sockets.length === before) { mock.timers.tick(100); await settle(); }
  assert.ok(Date.now() - at <= 1100);
  assert.equal(client.state, 'connecting');
  assert.ok(only('state').includes('waiting'));
});

test('the first return of SSE is within a second, the next by the time that the server names', async () => {
  open({ transports: ['sse'] });
  random = 0.9999;
  await settle();
  const waits = [];
  for (let cut = 0; cut < 3; cut++) {
    const stream = last(asked).stream(), count = asked.length;
    stream.bring('retry: 3000\nid: 7-1\n\n');
    await pass(6000);
    stream.cut();
    const at = Date.now();
    await settle();
    while (asked.length === count) { mock.timers.tick(100); await settle(); }
    waits.push(Math.round((Date.now() - at) / 1000));
  }
  assert.deepEqual(waits, [1, 6, 12]);
});

for (const [what, options, refuse, least] of [
  ['Retry-After', { transports: ['poll'] }, () => last(asked).answer({ error: { status: 503, code: 'draining', message: 'no' } }, { status: 503, headers: { 'Retry-After': '5' } }), 5000],
  ['retry: alone, and the end', { transports: ['sse'] }, () => { const stream = last(asked).stream(); stream.bring('retry: 4000\n\n'); stream.end(); }, 4000],
  ['1012', { transports: ['websocket'] }, () => end(1012), 2000],
  ['1013', { transports: ['websocket'] }, () => end(1013), 2000],
]) {
  test(`the server asks to wait by ${what}: the client waits, and stays with the transport`, async () => {
    open({ ...options, transports: [...options.transports, 'poll'] });
    random = 0;
    await settle();
    const [before, at] = [asked.length + sockets.length, Date.now()];
    refuse();
    await settle();
    while (asked.length + sockets.length === before) { mock.timers.tick(100); await settle(); }
    assert.ok(Date.now() - at >= least, `${Date.now() - at} ms`);
    const transport = sockets.length ? 'websocket' : last(asked).url.searchParams.get('transport');
    assert.equal(transport, options.transports[0]);
  });
}

for (const [what, transports, refuse] of [
  ['400', ['sse', 'poll'], () => last(asked).answer({ error: { status: 400, code: 'bad_channel', message: 'no' } }, { status: 400 })],
  ['401 without another token', ['sse', 'poll'], () => last(asked).answer({ error: { status: 401, code: 'token_required', message: 'no' } }, { status: 401 })],
  ['1008', ['websocket', 'poll'], () => end(1008)],
  ['4000', ['websocket', 'poll'], () => end(4000)],
]) {
  test(`${what} is for good: no request follows, and a loop ends with it`, async () => {
    const { client } = open({ transports });
    const ends = (async () => { for await (const _ of client); })();
    await settle();
    refuse();
    await assert.rejects(ends, /no/);
    const count = asked.length + sockets.length;
    await pass(100_000);
    assert.deepEqual([client.state, asked.length + sockets.length], ['closed', count]);
    await assert.rejects(client.publish('a', 'x'));
  });
}

test('a 403 or 404 of a proxy is no word of the server: the next transport is tried', async () => {
  const { client } = open({ transports: ['sse', 'poll'] });
  await settle();
  asked[0].answer('<h1>blocked</h1>', { status: 403 });
  await settle();
  assert.equal(asked[1].url.searchParams.get('transport'), 'poll');
  asked[1].answer('<h1>log in to the hotel</h1>');
  await settle();
  assert.equal(client.state, 'waiting');
});

test('a refused WebSocket: a poll is told why', async () => {
  const { client, only } = open({ transports: ['websocket'], token: 'wrong' });
  await settle();
  sockets[0].onerror({});
  await settle();
  assert.equal(asked[0].url.search, '?transport=poll&wait=0');
  asked[0].answer({ error: { status: 403, code: 'token_wrong', message: 'the token is none' } }, { status: 403 });
  await settle();
  assert.deepEqual([client.state, only('error')], ['closed', ['the token is none']]);
});

test('a token that is refused is asked for again, once', async () => {
  const tokens = ['old', 'new', 'newer'];
  const { client } = open({ transports: ['poll'], token: async () => tokens.shift() });
  const wrong = [{ error: { status: 403, code: 'token_wrong', message: 'no' } }, { status: 403 }];
  await settle();
  assert.equal(asked[0].init.headers.Authorization, 'Bearer old');
  asked[0].answer(...wrong);
  await settle();
  assert.equal(asked[1].init.headers.Authorization, 'Bearer new');
  asked[1].answer({ cursor: '7-1', messages: [] });
  await settle();
  // It was good for a while: so once more.
  asked[2].answer(...wrong);
  await settle();
  assert.equal(asked[3].init.headers.Authorization, 'Bearer newer');
  asked[3].answer(...wrong);
  await settle();
  assert.equal(client.state, 'closed');
  assert.ok(asked.every(({ url }) => !url.href.includes('old') && !url.searchParams.has('token')));
});

test('a token goes into the subprotocols of a WebSocket', async () => {
  open({ token: 't0k.en' });
  await settle();
  assert.deepEqual(sockets[0].protocols, ['tidings.v1', 'tidings.bearer.t0k.en']);
});

test('an idle WebSocket is asked for a sign of life, and is dead without one', async () => {
  const { client, only } = open({ after: '7-1' });
  await settle();
  sockets[0].bring({ cursor: '7-1', heartbeat: 25 });
  await pass(26_000);
  assert.deepEqual(sockets[0].sent, ['subscribe a ref=1']);
  sockets[0].bring({ subscribed: ['a'], cursor: '7-9', ref: '1' });
  await settle();
  assert.equal(client.cursor, '7-9');
  await pass(26_000);
  assert.equal(sockets[0].sent.length, 2);
  await pass(11_000);
  assert.ok(sockets[0].isClosed);
  assert.deepEqual(only('error'), ['the link is silent']);
  assert.equal(asked[0].url.searchParams.get('after'), '7-9', 'the next transport goes on from there');
});

test('an SSE link lives by comments, and is dead after 45 s without', async () => {
  const { only } = open({ transports: ['sse'] });
  await settle();
  const stream = asked[0].stream();
  stream.bring('retry: 1\nid: 7-1\n\n');
  for (let n = 0; n < 6; n++) {
    await pass(15_000);
    stream.bring(':\n\n');
    await settle();
  }
  assert.deepEqual(only('error'), []);
  await pass(46_000);
  assert.deepEqual(only('error'), ['the link is silent']);
});

test('a machine that slept comes back at once', async () => {
  open({ transports: ['websocket'], after: '7-1' });
  await settle();
  sockets[0].bring({ cursor: '7-5', heartbeat: 25 });
  await settle();
  mock.timers.setTime(Date.now() + 3_600_000);
  mock.timers.tick(1000);
  await settle();
  assert.ok(sockets[0].isClosed);
  assert.equal(sockets[1].url.searchParams.get('after'), '7-5');
});

test('a clock that is set back delays nothing', async () => {
  open({ transports: ['websocket'], after: '7-1' });
  await settle();
  sockets[0].bring({ cursor: '7-5', heartbeat: 25 });
  await settle();
  mock.method(Date, 'now', () => 500_000);
  await pass(1000);
  assert.ok(sockets[0].isClosed);
  assert.equal(sockets.length, 2);
});

test('a poll that takes its time, piece by piece, is not given up', async () => {
  const { only } = open({ transports: ['poll'], after: '7-0' });
  await settle();
  const text = JSON.stringify({ cursor: '7-1', messages: [message(1)] });
  const stream = asked[0].stream();
  for (const byte of text) {
    stream.bring(byte);
    await pass(5000);
  }
  stream.end();
  await settle();
  assert.deepEqual([only('message'), only('error')], [['m1'], []]);
});

test('closed while its token is fetched, or by a listener, it stays closed', async () => {
  let give;
  const slow = open({ token: () => new Promise(done => { give = done; }) });
  await settle();
  slow.client.close();
  give('late');
  await settle();
  assert.deepEqual([sockets.length, slow.client.state], [0, 'closed']);
  const { client } = open({ transports: ['poll'] });
  client.addEventListener('error', () => client.close());
  await settle();
  asked[0].fail();
  await pass(60_000);
  assert.deepEqual([client.state, asked.length], ['closed', 1]);
});

test('events of the page: online comes back at once', async () => {
  const target = new EventTarget();
  globalThis.addEventListener = target.addEventListener.bind(target);
  try {
    const { client } = open({ transports: ['websocket'] });
    await settle();
    end(1006);
    await settle();
    assert.equal(client.state, 'waiting');
    target.dispatchEvent(new Event('online'));
    await settle();
    assert.equal(sockets.length, 2);
    client.close();
    target.dispatchEvent(new Event('online'));
    await settle();
    assert.equal(sockets.length, 2);
  } finally {
    delete globalThis.addEventListener;
  }
});

test('blocks of a stream are found at every split, gaps and bytes among them', async () => {
  const text = `retry: 1\n\nevent: gap\nid: 7-4\ndata: ${JSON.stringify(gap(0, 4, 4).gap)}\n\n`
    + `id: 7-5\nevent: e\ndata: ${JSON.stringify(message(5, { event: 'e', data: 'ä\r\n\u2028€: x' }))}\n\n:\n\nid: 7-6\n\n`
    + `id: 7-7\ndata: ${JSON.stringify({ id: '7-7', channel: 'a', time: 0, base64: 'AP8=' })}\n\n`;
  const bytes = Buffer.from(text);
  for (let split = 0; split <= bytes.length; split += 3) {
    const { client, only } = open({ transports: ['sse'], after: '7-0' });
    await settle();
    const { signal } = last(asked).init;
    let controller;
    last(asked).answer(new ReadableStream({ start: it => { controller = it; } }));
    controller.enqueue(bytes.subarray(0, split));
    controller.enqueue(bytes.subarray(split));
    await settle();
    assert.deepEqual(only('gap'), ['7-4'], `split at ${split}`);
    assert.deepEqual(only('message'), ['ä\r\n\u2028€: x', new Uint8Array([0, 255])], `split at ${split}`);
    assert.equal(client.cursor, '7-7');
    client.close();
    assert.ok(signal.aborted);
  }
});

test('a loss is told once, though each new link tells of it', async () => {
  const { only, client } = open({ transports: ['websocket'], after: '7-1' });
  await settle();
  const [first] = sockets;
  first.bring({ cursor: '7-1', heartbeat: 25 });
  first.bring(gap(1, 50, 9));
  first.bring(message(10));
  await settle();
  first.onclose({ code: 1006 });
  await settle();
  await pass(1000);
  sockets[1].bring({ cursor: '7-10', heartbeat: 25 });
  sockets[1].bring(gap(10, 50, 20));
  sockets[1].bring(message(21));
  await settle();
  assert.deepEqual(only('gap'), ['7-50']);
  sockets[1].bring(gap(21, 60, 60));
  await settle();
  assert.deepEqual(only('gap'), ['7-50', '7-60']);
  assert.deepEqual([only('message'), client.cursor], [['m10', 'm21'], '7-60']);
});

test('another epoch is told, and its lower numbers are delivered', async () => {
  const { only, client } = open({ transports: ['websocket'], after: '7-1000' });
  await settle();
  sockets[0].bring({ cursor: '7-1000', heartbeat: 25 });
  sockets[0].bring({ gap: { after: '7-1000', through: '8-0', cursor: '8-0', reason: 'epoch' } });
  sockets[0].bring({ ...message(1), id: '8-1' });
  sockets[0].bring({ ...message(1), id: '8-1' });
  await settle();
  assert.deepEqual([only('gap'), only('message'), client.cursor], [['8-0'], ['m1'], '8-1']);
});

test('numbers beyond those of JavaScript keep their order', async () => {
  const { only } = open({ transports: ['websocket'], after: '7-9' });
  await settle();
  for (const seq of ['10', '9', '9007199254740992', '9007199254740993', '9007199254740992', '9223372036854775807'])
    sockets[0].bring(message(seq));
  await settle();
  assert.deepEqual(only('message'), ['m10', 'm9007199254740992', 'm9007199254740993', 'm9223372036854775807']);
});

test('a publish that lost its WebSocket is sent again with the same key', async () => {
  const { client } = open();
  await settle();
  sockets[0].bring({ cursor: '7-1', heartbeat: 25 });
  await settle();
  const answer = client.publish('a b', 'text', { event: 'ä', type: 'text/plain; charset=utf-8' });
  await settle();
  const [, key] = sockets[0].sent[0].match(/^publish a%20b event=%C3%A4 type=text%2Fplain%3B%20charset%3Dutf-8 key=([\d-]+) ref=1\ntext$/);
  sockets[0].onclose({ code: 1006 });
  await settle();
  posts()[0].fail();
  await settle();
  await pass(1000);
  for (const { url, init } of posts()) {
    assert.equal(url.href, 'http://server:8080/channels/a%20b?event=%C3%A4');
    assert.equal(init.headers['Idempotency-Key'], key);
    assert.equal(init.headers['Content-Type'], 'text/plain; charset=utf-8');
    assert.equal(await init.body.text(), 'text');
    assert.equal(init.body.type, '', 'fetch adds no type');
  }
  assert.equal(posts().length, 2);
  posts()[1].answer({ id: '7-5', channel: 'a', subscribers: 1 });
  assert.equal((await answer).id, '7-5');
});

test('a refused publish rejects with the code, by WebSocket and by POST', async () => {
  const error = { status: 413, code: 'message_too_large', message: 'too large' };
  const { client } = open({ after: '7-0' });
  await settle();
  const byPost = client.publish('a', new Uint8Array([1]));
  await settle();
  const [post] = posts();
  assert.equal(post.init.headers['Content-Type'], 'application/octet-stream');
  post.answer({ error }, { status: 413 });
  await assert.rejects(byPost, error);
  sockets[0].bring({ cursor: '7-1', heartbeat: 25 });
  await settle();
  const bySocket = client.publish('a', new Uint8Array([1]));
  await settle();
  assert.match(await sockets[0].sent[0].text(), /^publish a type=application%2Foctet-stream key=[\d-]+ ref=1\n\x01$/);
  sockets[0].bring({ error, ref: '1' });
  await assert.rejects(bySocket, error);
});

test('channels come and go by a command, or by a new link after the cursor', async () => {
  const { client, only } = open({ after: '7-1' });
  await settle();
  const [socket] = sockets;
  socket.bring({ cursor: '7-1', heartbeat: 25 });
  await settle();
  const more = client.subscribe(['b', 'c']);
  await settle();
  assert.equal(last(socket.sent), 'subscribe b,c ref=1');
  socket.bring({ subscribed: ['a', 'b', 'c'], cursor: '7-2', ref: '1' });
  socket.bring(message(3, { channel: 'b' }));
  await more;
  const refused = client.subscribe('d');
  await settle();
  socket.bring({ error: { status: 403, code: 'token_wrong', message: 'no' }, ref: '2' });
  await assert.rejects(refused, { code: 'token_wrong' });
  assert.equal(client.state, 'open');
  // The command is lost with the link: so it is done anew.
  const less = client.unsubscribe('a');
  await settle();
  socket.onclose({ code: 1006 });
  await less;
  await settle();
  const { searchParams, pathname } = last(asked).url;
  assert.deepEqual([pathname, searchParams.get('transport'), searchParams.get('after')], ['/channels/b,c', 'sse', '7-3']);
  assert.deepEqual(only('message'), ['m3']);
});

test('a client that only publishes asks for its token, and again when it is outdated', async () => {
  const tokens = ['old', 'new'];
  const { client } = open({ channels: [], token: () => tokens.shift() });
  const answer = client.publish('a', 'x');
  await settle();
  assert.equal(asked[0].init.headers.Authorization, 'Bearer old');
  asked[0].answer({ error: { status: 403, code: 'token_wrong', message: 'no' } }, { status: 403 });
  await settle();
  await pass(1000);
  assert.equal(asked[1].init.headers.Authorization, 'Bearer new');
  asked[1].answer({ id: '7-1', channel: 'a', subscribers: 0 });
  assert.equal((await answer).id, '7-1');
  const late = client.publish('a', 'x');
  await settle();
  client.close();
  await assert.rejects(late, { name: 'AbortError' });
  await assert.rejects(client.publish('a', 'x'), { name: 'AbortError' });
});

test('a change of channels that nobody answers is rejected in time', async () => {
  const { client } = open({ transports: ['poll'] });
  await settle();
  asked[0].answer({ cursor: '7-1', messages: [] });
  await settle();
  const more = client.subscribe('b');
  await settle();
  client.close();
  await assert.rejects(more, { name: 'AbortError' });
});

for (const [transport, bring] of Object.entries({
  websocket: () => sockets[0].bring({ cursor: '7-0', heartbeat: 25 }),
  sse: () => asked[0].stream().bring('retry: 1\nid: 7-0\n\n'),
  poll: () => asked[0].answer({ cursor: '7-0', messages: [] }),
})) {
  test(`${transport}: what is published at once waits until the link would hear it`, async () => {
    const { client } = open({ transports: [transport] });
    const answers = [client.publish('a', 'first'), client.publish('a', 'second')];
    await pass(4000);
    assert.deepEqual([posts(), sockets.flatMap(({ sent }) => sent)], [[], []]);
    bring();
    await settle();
    assert.equal(client.cursor, '7-0');
    if (transport === 'websocket') {
      assert.deepEqual(sockets[0].sent.map(line => line.split('\n')[1]), ['first', 'second']);
      for (const ref of ['1', '2']) sockets[0].bring({ published: { id: `7-${ref}` }, ref });
    } else {
      for (const [nth, post] of posts().entries()) post.answer({ id: `7-${nth + 1}` });
    }
    assert.deepEqual(await Promise.all(answers), [{ id: '7-1' }, { id: '7-2' }]);
  });
}

test('a publish waits for no link that would hear it anyway, or that does not read its channel', async () => {
  for (const [options, channel] of [[{ after: '7-1' }, 'a'], [{}, 'b'], [{ channels: [] }, 'a']]) {
    const { client } = open({ transports: ['sse'], ...options });
    client.publish(channel, 'x').catch(() => {});
    await settle();
    assert.equal(posts().length, 1);
    asked = [];
  }
});

test('a publish waits no longer than the first attempts, whether they fail or are not answered', async () => {
  for (const [wait, fail] of [[0, () => last(asked).fail()], [17_000, () => {}]]) {
    const { client } = open({ transports: ['sse', 'poll'] });
    const answer = client.publish('a', 'x');
    await settle();
    fail();
    await settle();
    fail();
    await settle();
    assert.equal(posts().length, wait ? 0 : 1);
    await pass(wait);
    posts()[0].answer({ id: '7-1' });
    assert.deepEqual(await answer, { id: '7-1' });
    client.close();
    asked = [];
  }
});

test('a publish that waits for its link is told why there will be none', async () => {
  const refused = open({ transports: ['sse'] }).client.publish('a', 'x');
  await settle();
  asked[0].answer({ error: { status: 401, code: 'token_required', message: 'no' } }, { status: 401 });
  await assert.rejects(refused, { code: 'token_required', final: true });
  const { client } = open();
  const closed = client.publish('a', 'x');
  client.close();
  await assert.rejects(closed, { name: 'AbortError' });
  await assert.rejects(open({ signal: AbortSignal.abort() }).client.publish('a', 'x'), { name: 'AbortError' });
});

test('what is no text and no bytes is refused, before anything is sent', async () => {
  const { client } = open({ channels: [] });
  for (const data of [{ a: 1 }, ['x'], null, undefined, 7, true, 7n, Symbol('x'), () => 'x', new Date(), { size: 1, type: 'Blob' }])
    await assert.rejects(client.publish('a', data), { name: 'TypeError', message: 'data must be a string, bytes or a Blob; use JSON.stringify for objects' });
  await settle();
  assert.equal(asked.length, 0);
});

test('a Blob brings its own type, unless another is given', async () => {
  const { client } = open({ channels: [] });
  for (const [data, type, want] of [
    [new Blob(['x'], { type: 'image/png' }), undefined, 'image/png'],
    [new File(['x'], 'x.txt', { type: 'text/plain;charset=utf-8' }), undefined, 'text/plain;charset=utf-8'],
    [new Blob(['x'], { type: 'image/png' }), 'text/html', 'text/html'],
    [new Blob(['x']), undefined, 'application/octet-stream'],
  ]) {
    const answer = client.publish('a', data, { type });
    await settle();
    assert.equal(last(asked).init.headers['Content-Type'], want);
    last(asked).answer({ id: '7-1' });
    await answer;
  }
});

test('transports that there are not are refused at once', () => {
  for (const transports of [[], ['pigeon'], ['sse', 'pigeon'], ['toString'], ['']])
    assert.throws(() => open({ transports }), { name: 'TypeError', message: /^transports must be some of websocket .*, sse and poll$/ });
});

test('where there is no WebSocket, it is left out without a word', async () => {
  delete globalThis.WebSocket;
  const { only } = open({ after: '7-0' });
  await settle();
  asked[0].stream().bring('retry: 1\nid: 7-0\n\n');
  await pass(40_000);
  assert.deepEqual([asked.length, only('transport'), only('error')], [1, ['sse'], []]);
  assert.throws(() => open({ transports: ['websocket'] }), { name: 'TypeError', message: /if there is one here/ });
});

test('bytes may come as an ArrayBuffer, a view of one, or a Blob', async () => {
  const { client } = open();
  await settle();
  sockets[0].bring({ cursor: '7-1', heartbeat: 25 });
  await settle();
  const { buffer } = new Uint8Array([120, 121]);
  for (const data of [buffer, new DataView(buffer), new Blob([buffer])]) {
    const answer = client.publish('a', data, { key: 'k' });
    await settle();
    sockets[0].bring({ published: { id: '7-2' }, ref: `${sockets[0].sent.length}` });
    await answer;
    assert.match(await last(sockets[0].sent).text(), /^publish a type=application%2Foctet-stream key=k ref=\d\nxy$/);
  }
});

test('without channels it is idle, and publishes all the same', async () => {
  const { client } = open({ channels: [] });
  await pass(60_000);
  assert.deepEqual([client.state, asked.length, sockets.length], ['idle', 0, 0]);
  const answer = client.publish('a', 'x');
  await settle();
  asked[0].answer({ id: '7-1', channel: 'a', subscribers: 0 });
  assert.deepEqual(await answer, { id: '7-1', channel: 'a', subscribers: 0 });
});

test('a loop that is too slow lets go of the link, and gets everything', async () => {
  const { client } = open({ transports: ['websocket'], after: '7-0' });
  const loop = client[Symbol.asyncIterator]();
  const first = loop.next();
  await settle();
  sockets[0].bring({ cursor: '7-0', heartbeat: 25 });
  for (let seq = 1; seq <= 2000; seq++) sockets[0].bring(message(seq));
  await settle();
  assert.ok(sockets[0].isClosed);
  const got = [(await first).value.id];
  while (got.length < 1001 && sockets.length === 1) got.push((await Promise.race([loop.next(), settle().then(() => ({ value: { id: 'none' } }))])).value.id);
  const resumed = sockets[1].url.searchParams.get('after');
  assert.ok(!got.slice(0, -1).includes('none'));
  assert.equal(resumed, got.findLast(id => id !== 'none'));
});

test('a loop that is left while it is too slow holds nobody up', async () => {
  const { client } = open({ transports: ['websocket'], after: '7-0' });
  const loop = client[Symbol.asyncIterator]();
  const first = loop.next();
  await settle();
  for (let seq = 1; seq <= 1001; seq++) sockets[0].bring(message(seq));
  await first;
  await settle();
  assert.equal(sockets.length, 1);
  await loop.return();
  await settle();
  assert.equal(sockets.length, 2);
});

test('a signal closes it, and close ends a loop and its timers', async () => {
  const control = new AbortController();
  const { client } = open({ signal: control.signal });
  const ends = (async () => { for await (const _ of client); return 'ended'; })();
  await settle();
  control.abort();
  assert.equal(await ends, 'ended');
  assert.equal(client.state, 'closed');
  await pass(60_000);
  assert.equal(sockets.length, 1);
  assert.equal(open({ signal: AbortSignal.abort() }).client.state, 'idle');
  await settle();
  assert.equal(sockets.length, 1);
});
