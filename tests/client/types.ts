// Compiled and never run: what an application writes is what client/tidings.d.ts says.

import { connect, type Gap, type Tidings } from '../../client/tidings.js';

const news: Tidings = connect('/', {
  channels: ['news', 'sport'],
  after: 'earliest',
  token: async () => 'fresh',
  transports: ['websocket', 'poll'],
  signal: AbortSignal.timeout(1000),
});

news.addEventListener('message', ({ detail }) => {
  const data: string | Uint8Array = detail.data;
  const facts: [string, string, number] = [detail.id, detail.channel, detail.time];
});
news.addEventListener('gap', ({ detail }) => { const gap: Gap = detail; });
news.addEventListener('state', ({ detail }) => { const isOver: boolean = detail === 'closed'; });
news.addEventListener('error', ({ detail }) => { const message: string = detail.message; });
news.addEventListener('of their own', event => event.type);

export async function read(): Promise<void> {
  for await (const piece of news) {
    if (piece.gap) console.log(piece.gap.reason);
    else console.log(piece.id.length, piece.data.length);
  }
}

export async function write(): Promise<string> {
  await news.subscribe('weather');
  await news.unsubscribe(['news', 'sport']);
  const { id, subscribers } = await news.publish('weather', new Uint8Array([1]), { event: 'e', type: 'image/png', key: 'k' });
  for (const data of ['text', new ArrayBuffer(1), new DataView(new ArrayBuffer(1)), new Blob(['x'])]) await news.publish('weather', data);
  news.close();
  return `${id} ${subscribers.toFixed()}`;
}

// @ts-expect-error: there is no such transport
connect('/', { transports: ['pigeon'] });
// @ts-expect-error: it is the client that moves it
news.cursor = '1-1';
