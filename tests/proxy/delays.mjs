// How long a reader is without messages when its connection is cut: a distribution for each
// transport, with many readers that are cut at once.
//
//     node delays.mjs http://127.0.0.1:8080 [READERS]
//
// Node 22 for WebSocket. It measures, and judges nothing but that all come back.

import { connect } from '../../client/tidings.js';
import { startProxy } from './proxy.mjs';

const [server, count = 100] = process.argv.slice(2);
const sleep = ms => new Promise(done => setTimeout(done, ms));

for (const transport of ['websocket', 'sse', 'poll']) {
  if (transport === 'websocket' && !('WebSocket' in globalThis)) continue;
  const proxy = await startProxy(server, 'changes nothing');
  const channel = `delays-${transport}-${Date.now()}`;
  const readers = Array.from({ length: Number(count) }, () => {
    const reader = { client: connect(proxy.url, { channels: channel, transports: [transport] }) };
    reader.client.addEventListener('message', () => { reader.back ??= Date.now(); });
    return reader;
  });
  let published = true;
  const publishing = (async () => {
    for (; published; await sleep(50)) await fetch(`${server}/channels/${channel}`, { method: 'POST', body: 'x' });
  })();
  while (readers.some(({ back }) => !back)) await sleep(50);
  await sleep(6000);  // what is cut sooner counts as a transport that does not work
  const cutAt = Date.now();
  proxy.cut();
  await new Promise(setImmediate);
  for (const reader of readers) reader.back = undefined;
  while (readers.some(({ back }) => !back)) await sleep(50);
  const delays = readers.map(({ back }) => back - cutAt).sort((a, b) => a - b);
  const at = part => delays[Math.min(delays.length - 1, Math.floor(part * delays.length))];
  console.log(`${transport}: of ${delays.length} readers, in ms: least ${at(0)}, a tenth ${at(0.1)}, half ${at(0.5)}, nine tenths ${at(0.9)}, all ${at(1)}`);
  readers.forEach(({ client }) => client.close());
  published = false;
  await publishing;
  proxy.close();
}
