// Clients written by others, as programs:
//
//     node clients.cjs read {ws,undici,eventsource} URL
//     node clients.cjs talk {ws,undici} URL PROTOCOL
//
// They print and read what those of clients.py do. NODE_PATH says where the packages are, which
// only CommonJS heeds.

const { EventSource } = require('eventsource');
const undici = require('undici');
const WebSocket = require('ws');

const tell = (...words) => process.stdout.write(words.join(' ') + '\n');

function tellFrame(text) {
  const frame = JSON.parse(text);
  if (frame.id) tell('message', frame.id, frame.data);
  else if (frame.gap) tell('gap', text);
  else if (frame.heartbeat) tell('open');
}

// Both have the browsers' interface.
const sockets = { ws: WebSocket, undici: undici.WebSocket };
const open = (client, url, protocols) => new sockets[client](url.replace('http:', 'ws:'), protocols);

function read(client, url) {
  if (client !== 'eventsource') {
    open(client, url, []).addEventListener('message', (event) => tellFrame(event.data));
    return;
  }
  const source = new EventSource(url);
  source.onopen = () => tell('open');
  source.onmessage = (event) => tell('message', event.lastEventId, event.data);
  source.addEventListener('gap', (event) => tell('gap', event.data));
}

function talk(client, url, protocol) {
  const socket = open(client, url, protocol === '-' ? [] : [protocol]);
  socket.binaryType = 'arraybuffer';
  socket.addEventListener('message', ({ data }) => {
    const isText = typeof data === 'string';
    tell(isText ? 'text' : 'binary', Buffer.from(data).toString('hex'));
  });
  socket.addEventListener('close', (event) => {
    tell('closed', event.code);
    process.exit();
  });
  socket.addEventListener('open', () => {
    tell('open', socket.protocol || 'None', socket.extensions || 'None');
    const lines = require('readline').createInterface({ input: process.stdin });
    lines.on('line', (line) => {
      const [kind, hex] = line.split(' ');
      const payload = Buffer.from(hex, 'hex');
      socket.send(kind === 'text' ? payload.toString() : payload);
    });
    lines.on('close', () => socket.close(1000));
  });
}

const [what, client, url, protocol] = process.argv.slice(2);
({ read, talk })[what](client, url, protocol);
