// A proxy as bad as those on the way: forwards to one server, and misbehaves in one manner.
//
//     node proxy.mjs http://127.0.0.1:8080 buffer 9000      # listens on port 9000
//
// It understands HTTP/1.1 requests and WebSocket handshakes, nothing of what they carry.
// `behaviours` has the list. Whatever it does to a connection, it never changes a byte of it.

import http from 'node:http';
import net from 'node:net';
import { pathToFileURL } from 'node:url';

// What is done to an answer's body (`body`), to an open WebSocket (`socket`), or before a request
// is passed on (`refuse`: a status, 0 to say nothing at all, undefined to pass).
export const behaviours = {
  'changes nothing': {},
  'keeps bodies until they end': { body: withheld },
  'keeps heads and bodies until they end': { body: withheld, head: 'late' },
  'passes the first bytes, keeps the rest': { body: answer => isStream(answer) ? limit(400, () => {}) : pass },
  'cuts after 5000 bytes': { body: (_, cut) => limit(5000, cut), socket: (_, cut) => limit(5000, cut) },
  'cuts after 1.5 s': { body: (_, cut) => timed(1500, cut), socket: (_, cut) => timed(1500, cut) },
  'closes streams and WebSockets 200 ms after opening': { body: (answer, cut) => isStream(answer) ? timed(200, cut) : pass, socket: (_, cut) => timed(200, cut) },
  'closes WebSockets 200 ms after opening': { socket: (_, cut) => timed(200, cut) },
  'keeps what a WebSocket brings': { socket: () => () => {} },
  'goes deaf after 1 s, and closes nothing': { socket: () => until(1000), body: answer => isStream(answer) ? until(1000) : pass },
  'strips Upgrade': { upgrade: 'strip' },
  'refuses WebSockets with 403': { upgrade: 403 },
  'delays each piece by up to 300 ms': { body: () => delayed(300), socket: () => delayed(300) },
  'answers 502 for 3 s': { refuse: since => since < 3000 ? 502 : undefined },
  'answers nothing for 3 s': { refuse: since => since < 3000 ? 0 : undefined },
  'answers each third request with 502': { refuse: (_, nth) => nth % 3 === 0 ? 502 : undefined },
};

const pass = (piece, write) => write(piece);
const isStream = answer => /event-stream/.test(answer.headers['content-type']);

function withheld(answer) {
  return isStream(answer) ? () => {} : pass;
}

function limit(bytes, then) {
  return (piece, write) => {
    if (piece.length < bytes) write(piece);
    else if (bytes > 0) write(piece.subarray(0, bytes)), then();
    bytes -= Math.min(bytes, piece.length);
  };
}

function timed(ms, cut) {
  setTimeout(cut, ms).unref();
  return pass;
}

function until(ms) {
  const end = Date.now() + ms;
  return (piece, write) => { if (Date.now() < end) write(piece); };
}

// In order: each piece waits for the one before it.
function delayed(ms) {
  let last = Promise.resolve();
  return (piece, write) => {
    const copy = Buffer.from(piece);
    last = last.then(() => new Promise(done => setTimeout(done, Math.random() * ms))).then(() => write(copy));
    return last;
  };
}

export async function startProxy(upstream, name, port = 0) {
  const to = new URL(upstream);
  const behaviour = behaviours[name];
  if (!behaviour) throw new Error(`no behaviour "${name}"; there are: ${Object.keys(behaviours).join(', ')}`);
  const began = Date.now();
  const open = new Set();
  let requests = 0;

  const server = http.createServer((request, response) => {
    const refusal = behaviour.refuse?.(Date.now() - began, ++requests);
    if (refusal === 0) return;
    if (refusal) return response.writeHead(refusal).end('bad gateway');
    // The client's own names and ports: the server checks Host and Origin.
    const forward = http.request({ host: to.hostname, port: to.port, method: request.method, path: request.url, headers: request.headers, agent: false });
    request.pipe(forward);
    forward.on('error', () => response.destroy());
    response.on('close', () => forward.destroy());
    forward.on('response', answer => {
      const { 'transfer-encoding': _, ...headers } = answer.headers;
      const head = () => response.headersSent || response.writeHead(answer.statusCode, headers);
      if (!(behaviour.head === 'late' && isStream(answer))) {
        head();
        response.flushHeaders();
      }
      const treat = behaviour.body?.(answer, () => response.destroy()) ?? pass;
      let last;
      answer.on('data', piece => { last = treat(piece, bytes => { head(); response.write(bytes); }); });
      answer.on('end', () => Promise.resolve(last).then(() => { head(); response.end(); }));
      answer.on('error', () => response.destroy());
    });
  });

  server.on('upgrade', (request, socket, first) => {
    socket.on('error', () => {});
    const refusal = behaviour.refuse?.(Date.now() - began, ++requests) ?? behaviour.upgrade;
    if (refusal === 0) return;
    if (refusal > 0) return socket.end(`HTTP/1.1 ${refusal} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    const strip = refusal === 'strip';
    const server = net.connect(to.port, to.hostname);
    const lines = [];
    for (let nth = 0; nth < request.rawHeaders.length; nth += 2) {
      const [name, value] = request.rawHeaders.slice(nth, nth + 2);
      if (!strip || !/^(upgrade|connection)$/i.test(name)) lines.push(`${name}: ${value}`);
    }
    server.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
    server.write(first);
    const cut = () => { socket.destroy(); server.destroy(); };
    let treat, head = Buffer.alloc(0);
    server.on('data', piece => {
      if (treat) return treat(piece, bytes => socket.write(bytes));
      // The handshake's own answer goes through.
      head = Buffer.concat([head, piece]);
      const end = head.indexOf('\r\n\r\n') + 4;
      if (end < 4) return;
      treat = (!strip && behaviour.socket?.(undefined, cut)) || pass;
      socket.write(head.subarray(0, end));
      if (head.length > end) treat(head.subarray(end), bytes => socket.write(bytes));
    });
    socket.pipe(server);
    server.on('close', () => socket.end());
    server.on('error', cut);
    socket.on('close', () => server.destroy());
  });

  server.on('connection', socket => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
  });
  await new Promise(done => server.listen(port, '127.0.0.1', done));
  const cut = () => open.forEach(socket => socket.destroy());
  return { url: `http://127.0.0.1:${server.address().port}`, cut, close: () => { server.close(); cut(); } };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [upstream, name, port] = process.argv.slice(2);
  const proxy = await startProxy(upstream, name, Number(port ?? 0));
  console.log(`${proxy.url} ${name}: ${upstream}`);
}
