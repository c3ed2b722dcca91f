// What would be published to npm: packed, installed into an empty project, type-checked there with
// the DOM's types and with Node's, the documentation's snippets too, and used from Node against a
// server that is killed meanwhile.
//
//     node tests/client/package.mjs target/debug/tidings
//
// Node 22 and TypeScript as in tests/browser. Nothing is fetched: the client has no dependencies.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';

const [binary] = process.argv.slice(2);
const at = path => fileURLToPath(new URL(path, import.meta.url));
const project = mkdtempSync(`${tmpdir()}/tidings-package-`);
process.on('exit', () => rmSync(project, { recursive: true, force: true }));
const sh = (program, ...words) => execFileSync(program, words, { cwd: project, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });

const [{ filename, files }] = JSON.parse(sh('npm', 'pack', '--json', '--silent', at('../../client')));
assert.deepEqual(files.map(({ path }) => path).sort(), ['README.md', 'package.json', 'tidings.d.ts', 'tidings.js']);
writeFileSync(`${project}/package.json`, '{ "private": true, "type": "module" }');
sh('npm', 'install', '--silent', '--offline', '--no-audit', '--no-fund', `./${filename}`);
const { dependencies } = JSON.parse(readFileSync(`${project}/node_modules/tidings-client/package.json`));
assert.equal(dependencies, undefined);
console.log(`ok ${filename} is installed: ${files.map(({ path, size }) => `${path} ${size}`).join(', ')}`);

const programs = { 'types.ts': readFileSync(at('types.ts'), 'utf8') };
// The snippets as they stand, with what they leave to the reader.
for (const path of ['README.md', 'client/README.md']) {
  const [, ...snippets] = readFileSync(at(`../../${path}`), 'utf8').split('```js\n').map(text => text.split('```')[0]);
  assert.ok(snippets.length > 0, path);
  for (const [nth, snippet] of snippets.entries())
    programs[`${path.replace('/', '-')}-${nth}.ts`] = snippet.includes('import') ? snippet : `import { connect } from '/tidings.js';\n${snippet}`;
}
for (const [name, text] of Object.entries(programs)) writeFileSync(`${project}/${name}`, text.replace(/'[^']*tidings\.js'/, "'tidings-client'"));
writeFileSync(`${project}/theirs.d.ts`, `
declare function show(channel: string, data: string | Uint8Array): void;
declare function loadEverythingAgain(): Promise<void>;
`);
const modules = at('../browser/node_modules');
for (const types of [['--lib', 'es2022,dom', '--types', ''], ['--lib', 'es2022', '--typeRoots', `${modules}/@types`, '--types', 'node']])
  sh(`${modules}/.bin/tsc`, '--noEmit', '--strict', '--target', 'es2022', '--module', 'nodenext', ...types, 'theirs.d.ts', ...Object.keys(programs));
console.log(`ok typed, ${Object.keys(programs)}, with the types of the DOM and with those of Node`);

const { connect } = await import(pathToFileURL(`${project}/node_modules/tidings-client/tidings.js`));

async function start(address = '127.0.0.1:0') {
  const child = spawn(binary, ['--listen', address], { stdio: ['ignore', 'ignore', 'pipe'] });
  process.on('exit', () => child.kill('SIGKILL'));
  for await (const line of createInterface(child.stderr)) {
    const [, url] = line.match(/^listening on (.*)/) ?? [];
    if (url) return child.stderr.resume(), { child, url };
  }
  throw new Error(`${binary} does not start`);
}

let { child, url } = await start();

// The client as the server serves it, without comments and spare space.
writeFileSync(`${project}/served.js`, await (await fetch(`${url}/tidings.js`)).text());
const served = await import(pathToFileURL(`${project}/served.js`));

// The first snippet of the client's README, where the way of the link is longer than that of the
// publish: a proxy keeps what asks for a transport until another request has come through it.
for (const transport of ['websocket', 'sse', 'poll']) {
  let pass;
  const passed = new Promise(done => { pass = done; });
  const proxy = net.createServer(socket => socket.once('data', async head => {
    const server = net.connect(new URL(url).port, '127.0.0.1');
    for (const side of [socket, server]) side.on('error', () => {});
    if (/transport=/.test(head)) await passed;
    server.write(head);
    socket.pipe(server).pipe(socket);
  })).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  const way = `http://127.0.0.1:${proxy.address().port}`;
  const news = served.connect(way, { channels: `first-${transport}`, transports: [transport] });
  const heard = new Promise(done => news.addEventListener('message', ({ detail }) => done(detail)));
  const published = news.publish(`first-${transport}`, 'hello');
  await (await fetch(`${way}/healthz`, { headers: { Connection: 'close' } })).text();
  pass();
  const { id } = await published;
  // Which is heard in any case.
  await news.publish(`first-${transport}`, 'again');
  const { id: heardId, data } = await heard;
  assert.deepEqual([heardId, data], [id, 'hello']);
  news.close();
  proxy.close();
  console.log(`ok ${transport}: a client hears what it publishes at once`);
}

const payloads = ['', 'text', 'ä\r\n\u2028 "x"\0', new Uint8Array(), Uint8Array.from({ length: 256 }, (_, n) => n), new Uint8Array(100_000).fill(200)];
const readers = [];
for (const transport of ['websocket', 'sse', 'poll']) {
  const client = connect(url, { channels: transport, transports: [transport] });
  const loop = client[Symbol.asyncIterator]();
  const first = loop.next();
  await new Promise(done => client.addEventListener('transport', done));
  for (const payload of payloads) await client.publish(transport, payload, { event: 'ä b', type: typeof payload === 'string' ? 'text/x; charset=utf-8' : undefined });
  const got = [(await first).value];
  while (got.length < payloads.length) got.push((await loop.next()).value);
  for (const [nth, { data, event, type, channel }] of got.entries()) {
    assert.deepEqual(data, payloads[nth]);
    assert.deepEqual([event, channel, type], ['ä b', transport, typeof data === 'string' ? 'text/x; charset=utf-8' : 'application/octet-stream']);
  }
  assert.equal(client.cursor, got.at(-1).id);
  // More channels, and fewer.
  await client.subscribe([`${transport}-2`]);
  await client.publish(`${transport}-2`, 'second');
  assert.equal((await loop.next()).value.channel, `${transport}-2`);
  await client.unsubscribe(transport);
  await client.publish(transport, 'not heard');
  await client.publish(`${transport}-2`, 'heard');
  assert.equal((await loop.next()).value.data, 'heard');
  await assert.rejects(client.publish('no/name', 'x'), { code: 'bad_channel', status: 400 });
  await assert.rejects(client.subscribe('no/name'), { code: 'bad_channel' });
  readers.push({ transport, client, loop });
  console.log(`ok ${transport}: text and bytes both ways, channels come and go`);
}

// Another server in its place knows nothing of the old cursors: so it says, once.
child.kill('SIGKILL');
await once(child, 'exit');
({ child } = await start(new URL(url).host));
await Promise.all(readers.map(async ({ transport, client, loop }) => {
  const { gap } = (await loop.next()).value;
  assert.equal(gap.reason, 'epoch');
  await client.publish(`${transport}-2`, 'anew');
  assert.equal((await loop.next()).value.data, 'anew');
  client.close();
  assert.deepEqual(await loop.next(), { value: undefined, done: true });
  console.log(`ok ${transport}: a killed server, another in its place, one gap`);
}));
child.kill();
await once(child, 'exit');

// No timer is left that would keep a program from its end.
assert.deepEqual(process.getActiveResourcesInfo().filter(kind => kind === 'Timeout'), []);
console.log('ok closed: no timer is left');
