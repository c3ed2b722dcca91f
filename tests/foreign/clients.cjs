// A client written by others, as a program: node clients.cjs {ws,eventsource} URL
//
// Prints `open` once it is connected, then `message ID DATA` for each message it is handed, and
// `gap ...` for a gap. NODE_PATH says where the packages are, which only CommonJS heeds.

const { EventSource } = require('eventsource');
const WebSocket = require('ws');

const tell = (...words) => process.stdout.write(words.join(' ') + '\n');

const clients = {
  ws(url) {
    const socket = new WebSocket(url.replace('http:', 'ws:'));
    socket.on('message', (text) => {
      const frame = JSON.parse(text);
      if (frame.id) tell('message', frame.id, frame.data);
      else if (frame.gap) tell('gap', text);
      else if (frame.heartbeat) tell('open');
    });
  },

  eventsource(url) {
    const source = new EventSource(url);
    source.onopen = () => tell('open');
    source.onmessage = (event) => tell('message', event.lastEventId, event.data);
    source.addEventListener('gap', (event) => tell('gap', event.data));
  },
};

const [client, url] = process.argv.slice(2);
clients[client](url);
