// The viewer page in a real browser, against a running server.
//
//     npm install && node page.mjs http://127.0.0.1:8080
//
// CHROMIUM names the browser (default /usr/bin/chromium). With PICTURES=DIRECTORY it also takes those of docs/pictures.
// The server must keep at most 1000 messages a channel, which is its default.

import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

const server = process.argv[2] ?? 'http://127.0.0.1:8080';
const transports = ['WebSocket', 'SSE', 'long poll'];
const run = Date.now().toString(36);  // names the channels of this run
let channels = 0;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});

const tests = {
  async 'a message is shown live'(page, transport) {
    const name = await open(page, transport);
    const id = await post(name, 'hello', { event: 'greeting', type: 'text/plain' });
    await rows(page, ['hello']);
    const facts = await page.locator('article p').innerText();
    for (const fact of [id, name, 'greeting', 'text/plain']) assert.ok(facts.includes(fact), `${fact} in ${facts}`);
  },

  async 'the page publishes'(page, transport) {
    const name = await open(page, transport);
    await page.getByLabel('Message', { exact: true }).fill('from the page');
    await page.keyboard.press('Enter');
    await rows(page, ['from the page']);
    const id = await page.locator('article .id').innerText();
    assert.match(await page.locator('#answer').innerText(), new RegExp(`^Published as ${id}; subscribers: \\d+\\.$`));
    assert.equal(await page.getByLabel('Message', { exact: true }).inputValue(), '');
    assert.match(await page.locator('#curl').innerText(), new RegExp(`^curl .*/channels/${name}$`));
  },

  async 'cut and resumed, nothing is lost or repeated'(page, transport) {
    const name = await open(page, transport);
    const sent = [];
    const burst = async () => { for (let n = 0; n < 5; n++) await post(name, sent[sent.push(`m${sent.length}`) - 1]); };
    for (let round = 0; round < 3; round++) {
      await burst();
      await rows(page, sent);
      await page.getByRole('button', { name: 'Cut' }).click();
      await state(page, 'Cut', /^Reconnecting in 5\.0 s after \d+-\d+\.$/);
      await burst();
      await rows(page, sent.slice(0, -5));
      await page.getByRole('button', { name: 'Reconnect' }).click();
      await state(page, 'Resumed', /after \d+-\d+\.$/);
      await rows(page, sent);
    }
  },

  async 'a reader that was cut before its first message misses none'(page, transport) {
    const name = await open(page, transport);
    await page.getByRole('button', { name: 'Cut' }).click();
    await post(name, 'missed?');
    await page.getByRole('button', { name: 'Reconnect' }).click();
    await rows(page, ['missed?']);
  },

  async 'changing the transport goes on from the cursor'(page, transport) {
    const name = await open(page, transport);
    const sent = [];
    for (const next of [...transports, transport]) {
      await page.getByLabel('Transport').selectOption(next);
      await post(name, next);
      sent.push(next);
      await rows(page, sent);
    }
  },

  async 'a loss is told, and the kept messages follow'(page, transport) {
    const name = await open(page, transport);
    const seen = await post(name, 'seen');
    await rows(page, ['seen']);
    await page.getByRole('button', { name: 'Cut' }).click();
    const lost = await post(name, 'lost');
    for (let n = 0; n < 1000; n++) await post(name, `kept ${n}`);
    await page.getByRole('button', { name: 'Reconnect' }).click();
    const sentence = new RegExp(`^Messages after ${seen} through ${lost} may be missing \\(evicted\\)\\.`);
    await state(page, 'Gap told', sentence);
    await page.getByText('kept 999', { exact: true }).waitFor();
    assert.equal(await page.locator('article').count(), 200);
  },

  async 'a cursor of another log is told'(page, transport) {
    const name = channel();
    await post(name, 'kept');
    await open(page, transport, `${name}?after=1-1`, 'Gap told');
    await state(page, 'Gap told', /^Messages after 1-1 through \d+-0 may be missing \(epoch\)/);
    assert.match(await page.locator('article.gap').innerText(), /\(epoch\)/);
    await post(name, 'live');
    await page.getByText('live', { exact: true }).waitFor();
  },

  async 'a payload is text, never markup'(page, transport) {
    const name = await open(page, transport);
    const markup = '<img src=x onerror="document.title=\'broken\'"><script>document.title="broken"</script>\u2028<b>';
    await post(name, markup);
    await rows(page, [markup]);
    assert.equal(await page.locator('article :is(img, script, b)').count(), 0);
    await post(name, new Uint8Array([0, 255, 1, 254]), { type: 'application/octet-stream' });
    await rows(page, [markup, '4 bytes; base64 begins AP8B/g==']);
    assert.doesNotMatch(await page.title(), /broken/);
  },

  async 'a refusal is said in the server\'s words, and not tried again'(page, transport) {
    const tokens = await refuse(page, 401, 'a token is needed');
    await open(page, transport, `${channel()}?token=secret`, 'Refused');
    await state(page, 'Refused', /^a token is needed$/);
    assert.deepEqual(tokens, ['secret']);
    assert.doesNotMatch(await page.locator('body').innerText(), /secret/);
  },

  async 'a server that leaves is named, and asked again'(page, transport) {
    await refuse(page, 503, 'the server is leaving');
    await open(page, transport, channel(), 'Server leaving');
    await page.unrouteAll();
    if (transport !== 'WebSocket') await state(page, 'Live', /./);
  },

  async 'a set of channels is one page'(page, transport) {
    const names = [channel(), channel()].sort();
    await open(page, transport, names.join(','));
    for (const name of names) await post(name, `to ${name}`);
    await rows(page, names.map(name => `to ${name}`));
    await page.getByLabel('Publish to').selectOption(names[1]);
    await page.getByLabel('Message', { exact: true }).fill('second');
    await page.getByRole('button', { name: 'Publish' }).click();
    await page.getByText('second', { exact: true }).waitFor();
    assert.deepEqual(await page.locator('article .channel').allInnerTexts(), [...names, names[1]]);
  },
};

for (const transport of transports) {
  for (const [name, test] of Object.entries(tests)) {
    const complaints = [];
    const context = await browser.newContext({ viewport: { width: 900, height: 620 } });
    const page = await context.newPage();
    page.on('console', message => message.text().startsWith('Failed to load resource') || complaints.push(message.text()));
    page.on('pageerror', error => complaints.push(error.message));
    await test(page, transport);
    assert.deepEqual(complaints, [], `${transport}: ${name}: the console is silent, the policy holds`);
    await context.close();
    console.log(`ok ${transport}: ${name}`);
  }
}

await frontDoor();
if (process.env.PICTURES) await pictures(process.env.PICTURES);
await browser.close();

// `/` shows the channel demo; another set is opened from there, by keyboard alone.
async function frontDoor() {
  const page = await browser.newPage();
  await page.goto(`${server}/`);
  await state(page, 'Live', /^by WebSocket/);
  const name = channel();
  const field = page.getByLabel('Channels');
  assert.equal(await field.inputValue(), 'demo');
  await field.fill(name);
  await field.press('Enter');
  await page.waitForURL(`${server}/channels/${name}`);
  await state(page, 'Live', /^by WebSocket/);
  console.log('ok /: opens another set of channels');
}

function channel() {
  return `page-${run}-${++channels}`;
}

// Opens the page on a channel of its own and waits until it says that it is live.
async function open(page, transport, path = channel(), word = 'Live') {
  // Between the end of parsing and the page's own script, as if the person had always wanted this transport.
  await page.addInitScript(transport => {
    document.addEventListener('readystatechange', () => { document.getElementById('transport').value = transport; }, { once: true });
  }, transport);
  await page.goto(`${server}/channels/${path}`);
  await state(page, word, word === 'Live' ? new RegExp(`^by ${transport} after \\d+-\\d+\\.$`) : /./);
  return path;
}

async function post(name, body, { event, type } = {}) {
  const query = event ? `?event=${event}` : '';
  const answer = await fetch(`${server}/channels/${name}${query}`, { method: 'POST', body, headers: type ? { 'Content-Type': type } : {} });
  assert.equal(answer.status, 200, await answer.clone().text());
  return (await answer.json()).id;
}

async function rows(page, want) {
  await page.waitForFunction(n => document.querySelectorAll('article').length >= n, want.length);
  assert.deepEqual(await page.locator('article pre').allTextContents(), want);
}

async function state(page, word, sentence) {
  await page.locator(`#status[data-state="${word}"]`).waitFor();
  assert.match(await page.locator('#status span').innerText(), sentence);
}

// Answers the page in the server's place; returns the tokens that it is asked with.
async function refuse(page, status, message) {
  const tokens = [];
  await page.routeWebSocket(/./, socket => socket.close());
  await page.route(/transport=(sse|poll)/, route => {
    tokens.push(new URL(route.request().url()).searchParams.get('token'));
    return route.fulfill({ status, json: { error: { status, code: 'refused', message } } });
  });
  return tokens;
}

// One picture of each thing a reader must be told, by turns light, dark and as wide as a phone.
async function pictures(directory) {
  const page = await browser.newPage({ viewport: { width: 800, height: 520 } });
  const names = ['weather', 'prices'];
  const take = async name => { await page.screenshot({ path: `${directory}/${name}.png` }); };

  await page.goto(`${server}/channels/${names}`);
  await state(page, 'Live', /./);
  await post(names[0], 'Rain until noon.\nThen <b>clearing</b>.', { type: 'text/plain' });
  await post(names[1], '{"eur":3.21}', { event: 'close', type: 'application/json' });
  await page.getByLabel('Message', { exact: true }).fill('hello from the page');
  await page.keyboard.press('Enter');
  await page.getByText('hello from the page', { exact: true }).waitFor();
  await take('live');

  await page.emulateMedia({ colorScheme: 'dark' });
  await page.getByRole('button', { name: 'Cut' }).click();
  await post(names[0], 'sent while the page was cut');
  await take('cut');

  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize({ width: 360, height: 640 });
  await page.getByRole('button', { name: 'Reconnect' }).click();
  await page.getByText('sent while', { exact: false }).waitFor();
  await take('resumed');

  await page.setViewportSize({ width: 800, height: 520 });
  await page.goto(`${server}/channels/${names}?after=1766-42`);
  await page.getByText('sent while', { exact: false }).waitFor();
  await take('gap');
}
