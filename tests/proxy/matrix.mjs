// Every misbehaviour of proxy.mjs, each transport, each action: in Node and in a real browser.
//
//     node matrix.mjs target/debug/tidings [--bounded] [--no-browser] [--only WORDS]
//
// Cells run side by side, for most of their time is waiting. Playwright and Chromium as in
// tests/browser. Fails if one cell does; prints what each took.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { connect } from '../../client/tidings.js';
import { run } from './cell.mjs';
import { behaviours, startProxy } from './proxy.mjs';

const [binary, ...flags] = process.argv.slice(2);
const bounded = flags.includes('--bounded');
const withBrowser = !flags.includes('--no-browser');
const only = flags.includes('--only') ? flags[flags.indexOf('--only') + 1] : '';
const HISTORY_MAX = 10;

const all = ['websocket', 'sse', 'poll'];
const hasWebSocket = 'WebSocket' in globalThis;

// What cannot work by its nature: the transport alone, through that proxy.
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
      if (isOne && hopeless[name].includes(proxy)) continue;
      if (place === 'Node' && name === 'websocket' && !hasWebSocket) continue;
      if (bounded && slow.includes(proxy)) continue;
      // The browser repeats what Node has shown, for what its own fetch and WebSocket do otherwise.
      if (bounded && place === 'browser' && isOne) continue;
      for (const action of ['read while it is published', 'publish through the proxy', 'come back too late']) {
        if (bounded && place === 'browser' && action === 'publish through the proxy') continue;
        list.push({ place, proxy, reader: 'client', transports, action });
      }
      if (!bounded && !isOne) list.push({ place, proxy, reader: 'loop', transports, action: 'read while it is published' });
    }
  }
  if (place === 'browser') {
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

async function runCell(cell, runner) {
  const server = cell.action === 'come back too late' ? servers.forgetful : servers.plain;
  const proxy = await startProxy(server, cell.proxy);
  const task = { ...cell, server, proxy: proxy.url, channel: `cell-${++nth}`, historyMax: HISTORY_MAX, patience: bounded ? 70_000 : 150_000 };
  const { problem, ms, log } = await runner(task);
  proxy.close();
  done++;
  if (problem) failures++;
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

const jobs = [runAll('Node', task => run(task, connect))];
if (withBrowser) jobs.push(inBrowser());
await Promise.all(jobs);
console.log(`${done} cells, ${failures} failed`);
process.exit(failures || !done ? 1 : 0);

async function inBrowser() {
  const { chromium } = createRequire(new URL('../browser/', import.meta.url))('playwright-core');
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const page = await browser.newPage();
  await page.goto(origin);
  await runAll('browser', task => page.evaluate(async task => {
    const [{ run }, { connect }] = await Promise.all([import('/cell.mjs'), import('/tidings.js')]);
    return run(task, connect);
  }, task));
  await browser.close();
}
