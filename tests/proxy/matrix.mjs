// Every misbehaviour of proxy.mjs, each transport, each action: in Node and in real browsers.
//
//     node matrix.mjs target/debug/tidings [--bounded] [--in Node,Chromium,Firefox] [--only WORDS]
//
// Cells run side by side, for most of their time is waiting. Node 22, Playwright and Chromium as in
// tests/browser, Firefox as in tests/browser/firefox.mjs. Fails if one cell does; prints what each
// took.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { connect } from '../../client/tidings.js';
import { openFirefox } from '../browser/firefox.mjs';
import { run } from './cell.mjs';
import { behaviours, startProxy } from './proxy.mjs';

const [binary, ...flags] = process.argv.slice(2);
const bounded = flags.includes('--bounded');
const option = (name, otherwise) => flags.includes(name) ? flags[flags.indexOf(name) + 1] : otherwise;
const only = option('--only', '');
const HISTORY_MAX = 10;

const all = ['websocket', 'sse', 'poll'];

// What cannot work by its nature: the transport alone, through that proxy. Such a reader has to say
// so, and what it gets all the same is the beginning of what there is.
const hopeless = {
  websocket: ['strips Upgrade', 'refuses WebSockets with 403', 'keeps what a WebSocket brings'],
  sse: ['keeps bodies until they end', 'keeps heads and bodies until they end', 'passes the first bytes, keeps the rest'],
  poll: [],
};
// Takes a whole silence of 45 s to find.
const slow = ['passes the first bytes, keeps the rest', 'goes deaf after 1 s, and closes nothing'];

function cells(place) {
  const list = [];
  for (const proxy of Object.keys(behaviours)) {
    for (const transports of [all, ...all.map(name => [name])]) {
      const [name, isOne] = [transports.join(), transports.length === 1];
      const isHopeless = isOne && hopeless[name].includes(proxy);
      if (bounded && slow.includes(proxy)) continue;
      // The browser repeats what Node has shown, for what its own fetch and WebSocket do otherwise.
      if (bounded && place !== 'Node' && isOne) continue;
      for (const action of ['read while it is published', 'publish through the proxy', 'come back too late']) {
        if (bounded && place !== 'Node' && action === 'publish through the proxy') continue;
        list.push({ place, proxy, reader: 'client', transports, action, isHopeless });
      }
      if (!bounded && !isOne) list.push({ place, proxy, reader: 'loop', transports, action: 'read while it is published' });
    }
  }
  if (place !== 'Node') {
    for (const [reader, transport] of [['EventSource', 'sse'], ['WebSocket', 'websocket']]) {
      for (const proxy of Object.keys(behaviours)) {
        // What opens and stays mute is beyond them.
        if (hopeless[transport].includes(proxy) || slow.includes(proxy) || proxy === 'answers nothing for 3 s') continue;
        list.push({ place, proxy, reader, transports: [transport], action: 'read while it is published' });
        // Cut again and again before the kept are through, a reader is told again, as the contract says.
        if (!/cuts|closes/.test(proxy)) list.push({ place, proxy, reader, transports: [transport], action: 'come back too late' });
      }
    }
  }
  return list.filter(cell => describe(cell).includes(only));
}

function describe({ place, proxy, reader, transports, action }) {
  return `${place}: ${proxy}: ${reader === 'client' ? '' : `${reader} by `}${transports}: ${action}`;
}

// The page that the browser's readers run in; its origin is another than the server's.
const site = http.createServer((request, response) => {
  const file = { '/cell.mjs': './cell.mjs', '/tidings.js': '../../client/tidings.js' }[request.url];
  response.setHeader('Content-Type', file ? 'text/javascript' : 'text/html');
  response.end(file ? readFileSync(new URL(file, import.meta.url)) : '<!doctype html><title>cells</title>');
});
site.listen(0, '127.0.0.1');
await once(site, 'listening');
const origin = `http://127.0.0.1:${site.address().port}`;

async function startServer(...options) {
  const child = spawn(binary, ['--listen', '127.0.0.1:0', '--origin', origin, ...options], { stdio: ['ignore', 'ignore', 'pipe'] });
  process.on('exit', () => child.kill());
  for await (const line of createInterface(child.stderr)) {
    const [, address] = line.match(/^listening on (.*)/) ?? [];
    if (address) {
      child.stderr.resume();
      return address;
    }
  }
  throw new Error(`${binary} does not start`);
}

const servers = { plain: await startServer(), forgetful: await startServer('--history-messages', String(HISTORY_MAX)) };
let nth = 0, failures = 0, done = 0;
const counts = {};

async function runCell(cell, runner) {
  const server = cell.action === 'come back too late' ? servers.forgetful : servers.plain;
  const proxy = await startProxy(server, cell.proxy);
  const patience = cell.isHopeless ? 60_000 : bounded ? 70_000 : 150_000;
  const task = { ...cell, server, proxy: proxy.url, channel: `cell-${++nth}`, historyMax: HISTORY_MAX, patience };
  const { problem, ms, log } = await runner(task);
  proxy.close();
  done++;
  if (problem) failures++;
  counts[cell.place] = (counts[cell.place] ?? 0) + 1;
  console.log(`${problem ? 'FAILED' : 'ok'} ${(ms / 1000).toFixed(1)} s  ${describe(cell)}${problem ? `: ${problem}\n    ${log.join('\n    ')}` : ''}`);
}

async function runAll(place, runner) {
  const list = cells(place);
  // So many at once that a busy machine still serves them in time.
  const width = place === 'Node' ? 40 : 20;
  await Promise.all(Array.from({ length: width }, async () => {
    for (let cell; (cell = list.shift());) await runCell(cell, runner);
  }));
}

// A page each, with what calls a function in it.
const places = {
  Node: () => ({ evaluate: (_, task) => run(task, connect), close() {} }),

  async Chromium() {
    const { chromium } = createRequire(new URL('../browser/', import.meta.url))('playwright-core');
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    });
    const page = await browser.newPage();
    await page.goto(origin);
    return { evaluate: (act, task) => page.evaluate(act, task), close: () => browser.close() };
  },

  Firefox: () => openFirefox(origin),
};

const inPage = async task => {
  const [{ run }, { connect }] = await Promise.all([import('/cell.mjs'), import('/tidings.js')]);
  return run(task, connect);
};

await Promise.all(option('--in', Object.keys(places).join()).split(',').map(async place => {
  const page = await places[place]();
  await runAll(place, task => page.evaluate(inPage, task));
  await page.close();
}));
console.log(Object.entries(counts).map(([place, count]) => `${count} in ${place}`).join(', '));
console.log(`${done} cells, ${failures} failed`);
process.exit(failures || !done ? 1 : 0);
