// One cell of the matrix, in Node or in a browser: somebody publishes to the server, a reader
// behind a proxy collects. The oracle: nothing lost, nothing twice, nothing in another order, and
// each gap said, once.

const sleep = ms => new Promise(done => setTimeout(done, ms));

// Readers. Each collects {id, data} and {gap} into `got`, from `after` on, until it is stopped.
export const readers = {
  client: ({ proxy, channel, after, transports, got, log }, connect) => {
    const client = connect(proxy, { channels: channel, after, transports });
    client.addEventListener('message', ({ detail }) => got.push(detail));
    client.addEventListener('gap', ({ detail }) => got.push({ gap: detail }));
    client.addEventListener('transport', ({ detail }) => log.push(detail));
    client.addEventListener('error', ({ detail }) => log.push(`${detail.transport}: ${detail.message}`));
    return { stop: () => client.close(), publish: (...what) => client.publish(...what) };
  },

  // The loop, slower than the channel.
  loop: ({ proxy, channel, after, transports, got, log }, connect) => {
    const client = connect(proxy, { channels: channel, after, transports });
    client.addEventListener('transport', ({ detail }) => log.push(detail));
    (async () => {
      for await (const piece of client) {
        got.push(piece);
        if (got.length % 100 === 0) await sleep(1);
      }
    })();
    return { stop: () => client.close(), publish: (...what) => client.publish(...what) };
  },

  // What a page does without our client. A status other than 200 ends an EventSource for good.
  EventSource: ({ proxy, channel, after, got, log }) => {
    let source, last = after, stopped;
    const open = () => {
      source = new EventSource(`${proxy}/channels/${channel}?after=${last}`);
      source.onmessage = ({ lastEventId, data }) => got.push({ id: last = lastEventId, data });
      source.addEventListener('gap', ({ lastEventId, data }) => { last = lastEventId; got.push({ gap: JSON.parse(data) }); });
      source.onopen = () => log.push('open');
      source.onerror = () => { if (source.readyState === EventSource.CLOSED && !stopped) setTimeout(open, 500); };
    };
    open();
    return { stop: () => { stopped = true; source.close(); } };
  },

  WebSocket: ({ proxy, channel, after, got, log }) => {
    let socket, last = after, stopped;
    const open = () => {
      socket = new WebSocket(`${proxy.replace('http', 'ws')}/channels/${channel}?after=${last}`);
      socket.onopen = () => log.push('open');
      socket.onmessage = ({ data }) => {
        const piece = JSON.parse(data);
        if (piece.id || piece.gap) got.push(piece);
        last = piece.gap?.cursor ?? piece.id ?? piece.cursor ?? last;
      };
      socket.onclose = () => stopped || setTimeout(open, 200);
    };
    open();
    return { stop: () => { stopped = true; socket.close(); } };
  },
};

// What happens while the reader reads. Each returns the ids that the channel has, in order.
const actions = {
  async 'read while it is published'({ post, count }) {
    const ids = [];
    for (let n = 0; n < count; n++) {
      ids.push(await post(`${n} ${'x'.repeat(n * 7 % 300)}`));
      await sleep(100);
    }
    return ids;
  },

  // Through the proxy, by the reader itself: a retry is not a second message.
  async 'publish through the proxy'({ reader, channel, count }) {
    const ids = [];
    for (let n = 0; n < count; n++) ids.push((await reader.publish(channel, n % 2 ? `${n}` : new Uint8Array([n, 255]))).id);
    return ids;
  },

  // `after` is far before what the server still has.
  async 'come back too late'({ kept }) {
    return kept;
  },
};

export async function run({ reader: kind, action, server, proxy, channel, transports, count = 30, patience = 60_000, historyMax, isHopeless }, connect) {
  const began = Date.now();
  const post = async body => {
    const answer = await fetch(`${server}/channels/${channel}`, { method: 'POST', body: new TextEncoder().encode(body) });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    return (await answer.json()).id;
  };
  const first = await post('before');
  const isLate = action === 'come back too late';
  const kept = [];
  if (isLate) for (let n = 0; n < 3 * historyMax; n++) kept.push(await post(`kept ${n}`));
  const lost = isLate ? kept.splice(0, 2 * historyMax) : [];

  const got = [], log = [];
  const reader = readers[kind]({ proxy, channel, after: first, transports, got, log }, connect);
  let problem, ids = [];
  try {
    ids = await Promise.race([
      actions[action]({ post, reader, channel, count, kept }),
      sleep(patience).then(() => { throw new Error('publishing takes too long'); }),
    ]);
    const last = ids.at(-1);
    const isOver = () => got.some(({ id }) => id === last) || (isHopeless && log.some(line => line.includes(': ')));
    while (!isOver() && Date.now() - began < patience) await sleep(50);
    await sleep(300);  // for what comes twice
    if (isHopeless && !isOver()) problem = 'nobody says that it does not work';
  } catch (error) {
    problem = error.message;
  }
  reader.stop();
  const gaps = got.filter(({ gap }) => gap);
  const want = ids.join(), have = got.filter(({ id }) => id).map(({ id }) => id).join();
  const isRight = isHopeless ? `${want},`.startsWith(have && `${have},`) : have === want;
  if (!problem && !isRight) problem = `got ${have || 'nothing'}, not ${want}`;
  if (!problem && isLate && !isHopeless && !(gaps.length === 1 && got[0].gap && gaps[0].gap.through === lost.at(-1)))
    problem = `${gaps.length} gaps were said`;
  if (!problem && !isLate && gaps.length) problem = 'a gap was said of which there was none';
  return { problem, ms: Date.now() - began, log };
}
