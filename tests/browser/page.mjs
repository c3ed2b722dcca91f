// The pages in a real browser, against a running server: a reader of each transport, and all three
// side by side. Looks for what axe-core knows of accessibility in each state, light and dark, wide
// and as narrow as a phone.
//
//     npm install && node page.mjs http://127.0.0.1:8080 [WORDS]      # only tests named so
//
// CHROMIUM names the browser (default /usr/bin/chromium), FIREFOX the one for a last look. With PICTURES=DIRECTORY it also takes a picture of each state.
// The server must keep at most 1000 messages a channel, which is its default.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { openFirefox } from './firefox.mjs';

const [server = 'http://127.0.0.1:8080', only = ''] = process.argv.slice(2);
const transports = ['WebSocket', 'SSE', 'long poll'];
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const run = process.env.PICTURES ? 'weather' : `page-${Date.now().toString(36)}`;  // names the channels of this run
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
    for (const fact of [id, 'greeting', 'text/plain']) assert.ok(facts.includes(fact), `${fact} in ${facts}`);
    assert.equal(await page.locator('.cursor').innerText(), id);
  },

  async 'the page publishes text, JSON and files'(page, transport) {
    const name = await open(page, transport);
    await page.getByLabel('Message', { exact: true }).fill('from the page');
    await page.keyboard.press('Enter');
    await rows(page, ['from the page']);
    const id = await page.locator('article .id').innerText();
    await answer(page, new RegExp(`^Published as ${id}; subscribers: \\d+\\.$`));
    assert.equal(await page.getByLabel('Message', { exact: true }).inputValue(), '');
    assert.match(await page.locator('.latency').innerText(), /^\d+\.\d ms/);

    await page.locator('#kind').selectOption('JSON');
    await page.getByLabel('Message', { exact: true }).fill('{"eur": 3}');
    await page.keyboard.press('Enter');
    await rows(page, ['from the page', '{"eur":3}']);
    await page.getByLabel('Message', { exact: true }).fill('{"eur": ');
    await page.keyboard.press('Enter');
    await answer(page, /^Not published: .*JSON/);

    await page.locator('#kind').selectOption('file');
    await page.getByLabel('File', { exact: true }).setInputFiles({ name: 'x', mimeType: 'image/png', buffer: Buffer.from([0, 255, 1, 254]) });
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    await rows(page, ['from the page', '{"eur":3}', '4 bytes: 00 ff 01 fe']);
    assert.match(await page.locator('article p').last().innerText(), /image\/png/);
  },

  async 'each line for a terminal does what it says'(page, transport) {
    const name = await open(page, transport);
    const seen = await post(name, 'seen');
    await rows(page, ['seen']);
    const lines = await page.locator('#terminal code').allInnerTexts();
    assert.deepEqual(lines.slice(0, 2), [`curl -N '${server}/channels/${name}?transport=sse'`, `curl -d 'hello' '${server}/channels/${name}'`]);
    await page.locator('#terminal code').getByText(`after=${seen}`).waitFor();
    await page.getByRole('button', { name: 'Copy: publish' }).click();
    assert.equal(await page.evaluate(() => String(getSelection())), lines[1]);
  },

  async 'cut and resumed, nothing is lost or repeated'(page, transport) {
    const name = await open(page, transport);
    const sent = [];
    const burst = async () => { for (let n = 0; n < 5; n++) await post(name, sent[sent.push(`m${sent.length}`) - 1]); };
    for (let round = 0; round < 3; round++) {
      await burst();
      await rows(page, sent);
      await page.getByRole('button', { name: 'Cut' }).click();
      await state(page, 'Cut', /^comes back in 5 s, after \d+-\d+$/);
      await burst();
      await rows(page, sent.slice(0, -5));
      await page.getByRole('button', { name: 'Resume', exact: true }).click();
      await rows(page, sent);
      await state(page, 'Resumed', /after \d+-\d+$/);
    }
  },

  async 'a reader that was cut before its first message misses none, and comes back by itself'(page, transport) {
    const name = await open(page, transport);
    await page.getByRole('button', { name: 'Cut' }).click();
    await post(name, 'missed?');
    await rows(page, ['missed?']);
    await state(page, 'Resumed', /./);
  },

  async 'what was offline comes back when it is online'(page, transport) {
    const name = await open(page, transport);
    await post(name, 'before');
    await rows(page, ['before']);
    await page.context().setOffline(true);
    await post(name, 'meanwhile');
    await page.context().setOffline(false);
    await post(name, 'after');
    await rows(page, ['before', 'meanwhile', 'after']);
    await state(page, 'Resumed', /./);
  },

  async 'changing the transport goes on from the cursor'(page, transport) {
    const name = await open(page, transport);
    const sent = [];
    for (const next of [...transports, 'the best that works', transport]) {
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
    await page.evaluate(() => { setTimeout = () => 1; });  // it shall not come back by itself
    await page.getByRole('button', { name: 'Cut' }).click();
    const lost = await post(name, 'lost');
    for (let n = 0; n < 999; n += 37) await Promise.all(Array.from({ length: 37 }, (_, k) => post(name, `kept ${n + k}`)));
    await post(name, 'kept 999');
    await page.getByRole('button', { name: 'Resume', exact: true }).click();
    // Of a burst the page keeps its last 200 rows, so the row of the gap is gone again.
    await state(page, 'Gap told', new RegExp(`^Messages after ${seen} through ${lost} may be missing \\(evicted\\)\\.`));
    await page.getByText('kept 999', { exact: true }).waitFor();
    assert.equal(await page.locator('article').count(), 200);
  },

  async 'what was kept before is one click away'(page, transport) {
    const name = channel();
    await post(name, 'kept');
    await open(page, transport, name);
    assert.equal(await page.locator('.none').innerText(), 'Nothing since you came. Show what is kept');
    await page.getByRole('link', { name: 'Show what is kept' }).click();
    await rows(page, ['kept']);
    assert.ok(await page.locator('.none').isHidden());
    const via = new URL(page.url()).searchParams.get('via');
    assert.equal(page.url(), `${server}/channels/${name}?via=${via}&after=earliest`);
    await page.goto(`${server}/channels/${channel()}?after=earliest`);
    assert.equal(await page.locator('.none').innerText(), 'No message yet.');
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
    await post(name, markup, { event: '%3Cb%3Ebold', type: 'text/html' });
    await rows(page, [markup]);
    assert.equal(await page.locator('article :is(img, script, b)').count(), 0);
    assert.match(await page.locator('article p').innerText(), /<b>bold/);
    assert.doesNotMatch(await page.title(), /broken/);
  },

  async 'a refusal is said in the server\'s words, and not tried again'(page, transport) {
    const asked = await refuse(page, 401, 'a token is needed');
    // A browser hides why a WebSocket was refused; the next transport is told.
    const via = transport === 'long poll' ? 'poll' : 'websocket,sse,poll';
    await page.goto(`${server}/channels/${channel()}?token=secret&via=${via}`);
    await state(page, 'Refused', /^a token is needed$/);
    for (const bearer of asked) assert.equal(bearer, 'Bearer secret');
    assert.ok(asked.length > 0);
    assert.doesNotMatch(await page.locator('body').innerText(), /secret/);
    assert.match(await page.locator('#terminal').innerText(), /"Authorization: Bearer \$TOKEN"/);
  },

  async 'a server that leaves is asked again'(page, transport) {
    await refuse(page, 503, 'the server is leaving');
    await open(page, transport, channel(), 'Waiting');
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
    await page.getByRole('button', { name: 'Publish', exact: true }).click();
    await page.getByText('second', { exact: true }).waitFor();
    assert.deepEqual(await page.locator('article .channel').allInnerTexts(), [...names, names[1]]);
  },
};

for (const transport of transports) {
  for (const [name, test] of Object.entries(tests)) await inPage(`${transport}: ${name}`, page => test(page, transport));
}
await inPage('/: three transports side by side', sideBySide);
await inPage('/: a token is asked for when one is missing', giveToken);
await inPage('a channel: a token is asked for when one is missing', giveTokenOfChannel);
if ('Firefox'.includes(only)) await inFirefox();
for (const [name, bring] of Object.entries(scenes())) await inPage(`accessible: ${name}`, page => look(page, name, bring));
await browser.close();

async function inPage(name, test) {
  if (!name.includes(only)) return;
  const complaints = [];
  const context = await browser.newContext({ viewport: { width: 900, height: 800 } });
  const page = await context.newPage();
  page.on('console', message => message.text().startsWith('Failed to load resource') || complaints.push(message.text()));
  page.on('pageerror', error => complaints.push(error.message));
  await test(page);
  assert.deepEqual(complaints, [], `${name}: the console is silent, the policy holds`);
  await context.close();
  console.log(`ok ${name}`);
}

// `/` shows the channel news; another set is opened from there, by keyboard alone. Each transport
// is cut by itself, and all show the same in the end.
async function sideBySide(page) {
  await page.goto(`${server}/`);
  const field = page.getByLabel('Channels');
  assert.equal(await field.inputValue(), 'news');
  const name = channel();
  await field.fill(name);
  await field.press('Enter');
  await page.waitForURL(`${server}/?channels=${name}`);
  for (let lane = 0; lane < 3; lane++) await page.locator('section').nth(lane).locator('[data-state=Live]').waitFor();
  assert.deepEqual(await page.locator('section h2').allInnerTexts(), transports);

  const text = page.getByLabel('Message', { exact: true });
  const want = [];
  for (let lane = 0; lane < 3; lane++) {
    const section = page.locator('section').nth(lane);
    await section.getByRole('button', { name: 'Cut' }).click();
    await text.fill('burst');
    await page.getByLabel('times').fill('20');
    await text.press('Enter');
    await page.waitForFunction(() => document.getElementById('text').value === '');
    for (let nth = 1; nth <= 20; nth++) want.push(`burst ${nth}`);
    await section.getByRole('button', { name: 'Resume', exact: true }).click();
    await section.locator('[data-state=Resumed]').waitFor();
    for (let other = 0; other < 3; other++) {
      await page.waitForFunction(([nth, count]) => document.querySelectorAll('section')[nth].querySelectorAll('article').length >= count, [other, want.length]);
      assert.deepEqual(await page.locator('section').nth(other).locator('pre').allTextContents(), want);
      assert.match(await page.locator('section').nth(other).locator('.latency').innerText(), / ms/);
    }
  }
  await page.getByRole('link', { name: 'One reader' }).click();
  await page.waitForURL(`${server}/channels/${name}`);
  await page.getByRole('link', { name: 'All transports side by side' }).click();
  await page.waitForURL(`${server}/?channels=${name}`);
}

async function giveToken(page) {
  const asked = await refuse(page, 401, 'a token is needed', 'token_required');
  const name = channel();
  await page.goto(`${server}/?channels=${name}`);
  await page.locator('[data-state=Refused]').nth(2).waitFor();
  // Not mended yet, so the same again.
  await page.getByRole('button', { name: 'Try again' }).first().click();
  await page.getByRole('button', { name: 'Try again' }).nth(2).waitFor();
  assert.ok(asked.every(bearer => bearer === undefined));
  await page.unrouteAll();
  await page.getByLabel('Token').fill('sesame');
  await page.keyboard.press('Enter');
  await page.waitForURL(`${server}/?token=sesame&channels=${name}`);
  await page.locator('section').nth(2).locator('[data-state=Live]').waitFor();
  assert.ok(await page.getByLabel('Token').isHidden());
}

// As a server with tokens answers: the page itself comes with 401.
async function giveTokenOfChannel(page) {
  await refuse(page, 401, 'a token is needed', 'token_required');
  const path = `${server}/channels/${channel()}`;
  await page.route(({ href }) => href === `${path}?after=earliest`, async route => route.fulfill({ response: await route.fetch(), status: 401 }));
  await page.goto(`${path}?after=earliest`);
  await state(page, 'Refused', /^a token is needed$/);
  assert.ok(await page.locator('.none').isHidden());
  await page.unrouteAll();
  await page.getByLabel('Token').fill('sesame');
  await page.keyboard.press('Enter');
  await page.waitForURL(`${path}?token=sesame&after=earliest`);
  await state(page, 'Live', /./);
  assert.ok(await page.getByLabel('Token').isHidden());
}

// The same page elsewhere: live on all three, published to, cut, resumed.
async function inFirefox() {
  const name = channel();
  const firefox = await openFirefox(`${server}/?channels=${name}`);
  const seen = await firefox.evaluate(async () => {
    const all = selector => [...document.querySelectorAll(selector)];
    const until = async check => {
      for (let tries = 0; !check(); tries++) {
        if (tries > 600) throw new Error(`not in a minute: ${check}`);
        await new Promise(done => setTimeout(done, 100));
      }
    };
    const complaints = [];
    addEventListener('securitypolicyviolation', ({ violatedDirective }) => complaints.push(violatedDirective));
    const publish = async text => {
      document.getElementById('text').value = text;
      document.getElementById('publish').requestSubmit();
      await until(() => document.getElementById('text').value === '');
    };
    await until(() => all('[data-state=Live]').length === 3);
    await publish('<b>one</b>');
    await until(() => all('pre').length === 3);
    all('section button').forEach(button => button.click());
    await publish('two');
    all('section button').forEach(button => button.click());
    await until(() => all('[data-state=Resumed]').length === 3 && all('pre').length === 6);
    return { complaints, texts: all('pre').map(row => row.textContent) };
  });
  await firefox.close();
  assert.deepEqual(seen, { complaints: [], texts: ['<b>one</b>', 'two', '<b>one</b>', 'two', '<b>one</b>', 'two'] });
  console.log('ok /: in Firefox, cut and resumed');
}

// How to bring a page into each state that it can show.
function scenes() {
  const playground = async (page, path = channel()) => {
    await page.goto(`${server}/?channels=${path}`);
    return path;
  };
  const live = async page => {
    const name = await playground(page);
    await page.locator('[data-state=Live]').nth(2).waitFor();
    return name;
  };
  // What comes back by itself shall not.
  const cut = async page => {
    const name = await live(page);
    await post(name, 'Rain until noon.', { type: 'text/plain' });
    await page.getByText('Rain').nth(2).waitFor();
    await page.evaluate(() => { globalThis.later = setTimeout; setTimeout = () => 1; });
    for (let lane = 0; lane < 3; lane++) await page.locator('section').nth(lane).getByRole('button').click();
    await page.locator('[data-state=Cut]').nth(2).waitFor();
    await page.evaluate(() => { setTimeout = later; });
    return name;
  };
  const shows = async (page, text, what) => {
    const name = await live(page);
    await post(name, text, what);
    await page.locator('section').nth(2).locator('article').waitFor();
  };
  return {
    empty: live,
    async connecting(page) {
      // Nothing is answered, and nobody grows impatient.
      await page.addInitScript(() => { setInterval = () => 0; });
      await page.routeWebSocket(/./, () => new Promise(() => {}));
      await page.route(/transport=/, () => {});
      await playground(page);
      await page.locator('[data-state=Connecting]').nth(2).waitFor();
    },
    async live(page) {
      const name = await live(page);
      await post(name, 'Rain until noon.\nThen <b>clearing</b>.', { type: 'text/plain' });
      await post(name, '{"celsius":3.2}', { event: 'measured', type: 'application/json' });
      await page.getByLabel('Message', { exact: true }).fill('hello from the page');
      await page.keyboard.press('Enter');
      await page.getByText('hello from the page', { exact: true }).nth(2).waitFor();
    },
    async cut(page) { await cut(page); },
    async resumed(page) {
      await post(await cut(page), 'sent meanwhile');
      for (let lane = 0; lane < 3; lane++) await page.locator('section').nth(lane).getByRole('button').click();
      await page.locator('[data-state=Resumed]').nth(2).waitFor();
      await page.getByText('sent meanwhile', { exact: true }).nth(2).waitFor();
    },
    async gap(page) {
      const name = channel();
      await post(name, 'kept');
      await playground(page, `${name}&after=1766-42`);
      await page.locator('[data-state="Gap told"]').nth(2).waitFor();
    },
    async refused(page) {
      await refuse(page, 401, 'this server asks for a token: send it as "Authorization: Bearer TOKEN"', 'token_required');
      await playground(page);
      await page.locator('[data-state=Refused]').nth(2).waitFor();
    },
    async gone(page) {
      await page.routeWebSocket(/./, socket => socket.close());
      await page.route(/transport=/, route => route.abort());
      await page.addInitScript(() => { Math.random = () => 0.9999; });
      await playground(page);
      await page.locator('[data-state=Waiting]').nth(2).waitFor();
    },
    long: page => shows(page, `${'A long line, which goes on. '.repeat(12)}\n${'without-a-space'.repeat(20)}\n${'last line\n'.repeat(30)}`),
    binary: page => shows(page, Buffer.from(Array.from({ length: 300 }, (_, n) => n * 7 % 256)), { type: 'image/png' }),
    hostile: page => shows(page, '<img src=x onerror="alert(1)"><script>alert(2)</script>\u202e gnp.exe', { event: '%3Cb%3Ebold', type: 'text/html' }),
    async 'not published'(page) {
      await live(page);
      await page.locator('#kind').selectOption('JSON');
      await page.getByLabel('Message', { exact: true }).fill('{"eur": ');
      await page.keyboard.press('Enter');
      await answer(page, /^Not published/);
    },
    async 'one reader'(page) {
      const names = [channel(), channel()].sort();
      await open(page, 'WebSocket', names.join());
      for (const name of names) await post(name, `to ${name}`);
      await page.locator('article').nth(1).waitFor();
    },
  };
}

async function look(page, name, bring) {
  await bring(page);
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1000, 360]) {
      // Half of the four show all colours and both layouts; the others are for pictures.
      if (!process.env.PICTURES && (colorScheme === 'light') !== (width === 1000)) continue;
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 700 });
      // By the debugger, which the page's policy does not bind.
      const found = await page.evaluate(`${axe}; axe.run()`);
      const violations = found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(node => node.html)}`);
      assert.deepEqual(violations, [], `${name}, ${colorScheme}, ${width} px`);
      assert.ok(found.passes.length > 15, 'axe has looked');
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${name}, ${width} px: ${overflow} px are beyond the edge`);
      if (process.env.PICTURES) await page.screenshot({ path: `${process.env.PICTURES}/${name}-${colorScheme}-${width}.png`, fullPage: width < 1000 });
    }
  }
}

function channel() {
  return `${run}-${++channels}`;
}

// Opens the page on a channel of its own and waits until it says that it is live.
async function open(page, transport, path = channel(), word = 'Live') {
  const via = { WebSocket: 'websocket', SSE: 'sse', 'long poll': 'poll' }[transport];
  await page.goto(`${server}/channels/${path}${path.includes('?') ? '&' : '?'}via=${via}`);
  await state(page, word, word === 'Live' ? new RegExp(`^by ${transport}`) : /./);
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

async function answer(page, sentence) {
  await page.waitForFunction(() => document.getElementById('answer').value !== '…');
  assert.match(await page.locator('#answer').innerText(), sentence);
}

async function state(page, word, sentence) {
  await page.locator(`.status[data-state="${word}"]`).waitFor();
  assert.match(await page.locator('.status span').innerText(), sentence);
}

// Answers the page in the server's place; returns the tokens that it is asked with.
async function refuse(page, status, message, code = 'refused') {
  const bearers = [];
  await page.routeWebSocket(/./, socket => socket.close());
  await page.route(/transport=(sse|poll)/, route => {
    bearers.push(route.request().headers().authorization);
    return route.fulfill({ status, json: { error: { status, code, message } } });
  });
  return bearers;
}
