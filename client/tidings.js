// Tidings for browsers and Node: any network, nothing lost. README.md and tidings.d.ts say how to
// use it. The server serves this file without comments and spare space; so it fits into 4 KiB.
//
// A reader is a cursor and a link. Links come and go, at times there are two; the cursor moves on
// with every message, so the next link goes on exactly where the last one was. Whatever comes from
// any link goes through #take, and whatever ends one through #ended.

// In milliseconds. No cursor by then: somebody between us and the server keeps the bytes. And what
// is cut so soon will be cut so soon again.
const SHORT = 5_000;
// No answer by then, though the server answers at once: the link is dead.
const ANSWER = 10_000;
// Three heartbeats of SSE.
const SILENCE = 45_000;
// Heard from for so long: earlier troubles are forgotten. Cut three times in a row without: who
// cuts it does so by the clock.
const HEALTHY = 30_000;
// Until the better transports are tried again; doubled each time they fail.
const CLIMB = 10_000;

export const connect = (url, options) => new Tidings(url, options);

class Tidings extends EventTarget {
  state = 'idle';
  transport;
  cursor;
  #base;
  #channels;
  #transports;
  #token;
  #renew;
  #isRenewed;
  // The link that delivers, and the one that is to take its place.
  #link;
  #attempt;
  // Which transport is tried first, and from when on it is the best one again.
  #level = 0;
  #climbAt = 0;
  #climbWait = CLIMB;
  #tries = 0;
  #retry;
  #tickAt = Date.now();
  // Through where a loss has been told.
  #told;
  // The queues of loops that are too slow.
  #behind = new Set();
  #life = new AbortController();

  constructor(url, { channels = [], after, token, transports = ['websocket', 'sse', 'poll'], signal } = {}) {
    super();
    this.#base = new URL(url, globalThis.location?.href).href.replace(/\/?([?#].*)?$/, '/');
    this.#channels = setOf(channels);
    // Node has a WebSocket from version 22 on.
    this.#transports = transports.filter(name => name !== 'websocket' || globalThis.WebSocket);
    if (!this.#transports.length || !this.#transports.every(name => Object.hasOwn(this.#run, name)))
      throw new TypeError('transports must be some of websocket (if there is one here), sse and poll');
    this.cursor = after;
    if (typeof token === 'function') this.#renew = token;
    else this.#token = token;
    const ticking = setInterval(this.#tick, 1000);
    this.#life.signal.onabort = () => clearInterval(ticking);
    globalThis.addEventListener?.('online', () => this.#relink(), this.#life);
    globalThis.document?.addEventListener('visibilitychange', this.#tick, this.#life);
    signal?.addEventListener('abort', () => this.close(), this.#life);
    queueMicrotask(() => (signal?.aborted ? this.close() : this.#relink()));
  }

  subscribe(channels) {
    return this.#change('subscribe', channels);
  }

  unsubscribe(channels) {
    return this.#change('unsubscribe', channels);
  }

  async publish(channel, data, { event, type, key = crypto.getRandomValues(new Uint32Array(4)).join('-') } = {}) {
    if (typeof data !== 'string') {
      if (!ArrayBuffer.isView(data) && !/(Blob|File|ArrayBuffer)]/.test({}.toString.call(data)))
        throw new TypeError('data must be a string, bytes or a Blob; use JSON.stringify for objects');
      type ??= data.type || 'application/octet-stream';
      // A copy, for the caller may use its bytes again.
      data = new Blob([data]);
    }
    // The first link starts at `now`, and would miss what is published before that.
    while (!/-/.test(this.cursor) && this.#channels.has(channel) && /idle|connecting/.test(this.state))
      await new Promise(done => this.addEventListener('state', done, { once: true }));
    let line = `publish ${path([channel])}`;
    for (const [name, value] of Object.entries({ event, type, key })) if (value) line += ` ${name}=${path([value])}`;
    const { published, error } = await this.#command(line, '\n', data);
    if (published) return published;
    if (error?.status < 500) throw failure(error);
    // Whatever became of the command: with the same key it is the same message. The body is a Blob,
    // because fetch gives text a type.
    const headers = { 'Idempotency-Key': key, ...(type && { 'Content-Type': type }) };
    const body = new Blob([data]);
    for (let tries = 0; ; tries++) {
      try {
        const answer = await this.#ask([channel], { event }, { method: 'POST', headers, body });
        return await answer.json();
      } catch (error) {
        if (tries > 7 || this.state === 'closed' || (error.final && !this.#renews(error))) throw error;
        await new Promise(done => setTimeout(done, delay(tries, error)));
      }
    }
  }

  // There is no endless queue: for a loop that is too slow the link is let go, and the cursor stays.
  async *[Symbol.asyncIterator]() {
    const queue = [];
    let wake;
    const catchUp = () => this.#behind.delete(queue) && this.#open();
    const until = new AbortController();
    const add = ({ type, detail }) => {
      if (type !== 'state') queue.push(type === 'gap' ? { gap: detail } : detail);
      if (queue.length > 999) {
        this.#behind.add(queue);
        this.#stop();
      }
      wake?.();
    };
    for (const type of ['message', 'gap', 'state']) this.addEventListener(type, add, until);
    try {
      for (;;) {
        while (queue.length) yield queue.shift();
        catchUp();
        const { aborted, reason } = this.#life.signal;
        if (reason?.final) throw reason;
        if (aborted) return;
        await new Promise(done => (wake = done));
      }
    } finally {
      until.abort();
      catchUp();
    }
  }

  // An error is what loops end with.
  close(error) {
    this.#stop();
    this.#life.abort(error);
    this.#turn('closed');
  }

  async #change(verb, channels) {
    const names = setOf(channels);
    const { subscribed, error } = await this.#command(`${verb} ${path(names)}`);
    if (error) throw failure(error);
    if (subscribed) return;
    const isWider = verb === 'subscribe';
    // A refusal concerns this call alone; told to a link it would end everything.
    if (isWider) await this.#ask(names, { transport: 'poll', wait: 0 });
    for (const name of names) this.#channels[isWider ? 'add' : 'delete'](name);
    this.#told = undefined;
    this.#relink();
  }

  // The parts are a line and, to publish, a newline and the payload. Gives the answer; nothing is in
  // it if there is no WebSocket, or if it ends before.
  #command(...parts) {
    const link = this.#link;
    if (!link?.socket) return {};
    const ref = `${++link.refs}`;
    if (!link.answers.size) link.heard = Date.now();
    parts[0] += ` ref=${ref}`;
    link.socket.send(typeof parts[2] === 'object' ? new Blob(parts) : parts.join(''));
    return new Promise(answer => link.answers.set(ref, answer));
  }

  #turn(state) {
    if (this.state !== 'closed' && this.state !== state) this.#emit('state', (this.state = state));
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #stop() {
    drop(this.#link);
    drop(this.#attempt);
    this.#link = this.#attempt = undefined;
    clearTimeout(this.#retry);
  }

  #relink() {
    this.#stop();
    this.#tries = 0;
    this.#open();
  }

  async #open(level = Date.now() < this.#climbAt ? this.#level % this.#transports.length : 0) {
    if (this.#behind.size || this.state === 'closed') return;
    if (!this.#channels.size) return this.#turn('idle');
    if (!this.#link) this.#turn('connecting');
    const name = this.#transports[level];
    const link = Object.assign(new AbortController(), { level, name, heard: Date.now(), limit: SHORT, answers: new Map(), refs: 0 });
    this.#attempt = link;
    try {
      this.#token ??= await this.#renew?.();
      await this.#run[name](link);
    } catch (error) {
      this.#ended(link, error);
    }
  }

  #ended(link, error) {
    if (link.signal.aborted) return;
    drop(link);
    if (link === this.#link) this.#link = undefined;
    else this.#attempt = undefined;
    this.#emit('error', Object.assign(error, { transport: link.name }));
    // What is on its way already decides.
    if (this.#attempt || this.state === 'closed') return this.#turn('connecting');
    if (this.#renews(error)) return this.#open(link.level);
    if (error.final) return this.close(error);
    const now = Date.now();
    const best = this.#link?.level ?? this.#transports.length;
    const fails = error.mute || (error.wait === undefined && !(now - link.up > (this.#tries > 2 ? HEALTHY : SHORT)));
    if (fails || this.#link) {
      if (link.up || this.#link) this.#climbWait = Math.min(2 * this.#climbWait, 60 * CLIMB);
      this.#climbAt = now + this.#climbWait;
    }
    // This transport does not work. The next may, if it is better than what there is.
    if (fails && (this.#level = link.level + 1) < best) return this.#open(this.#level);
    if (this.#link) return;
    this.#retry = setTimeout(() => this.#open(), delay(this.#tries++, { base: link.base, ...error }));
    this.#turn('waiting');
  }

  // What any transport brings: {cursor}, {gap}, a message, the answer to a command.
  #take(link, { ref, gap, base64, heartbeat, subscribed, ...message }) {
    if (link.signal.aborted) return;
    link.heard = Date.now();
    if (!link.up) {
      drop(this.#link);
      this.#link = link;
      this.#attempt = undefined;
      this.#isRenewed = false;
      this.#level = link.level;
      link.up = link.heard;
      link.limit = heartbeat * 1000 || SILENCE;
      this.#emit('transport', (this.transport = link.name));
      this.#turn('open');
    }
    if (subscribed) this.#channels = new Set(subscribed);
    link.answers.get(ref)?.({ subscribed, ...message });
    link.answers.delete(ref);
    if (gap) return this.#tell(gap);
    const cursor = message.id ?? message.cursor;
    if (!isAfter(cursor, this.cursor)) return;
    this.cursor = cursor;
    if (base64 !== undefined) message.data = Uint8Array.from(atob(base64), byte => byte.charCodeAt());
    if (this.#channels.has(message.channel)) this.#emit('message', message);
  }

  // Whoever resumes before the end of a loss is told of it again; the application is not.
  #tell(gap) {
    const { reason, through, cursor } = gap;
    if (reason !== 'evicted') this.cursor = this.#told = undefined;
    const isNew = isAfter(through, this.cursor) && isAfter(through, this.#told);
    if (isAfter(cursor, this.cursor)) this.cursor = cursor;
    if (!isNew) return;
    this.#told = through;
    this.#emit('gap', gap);
  }

  // By the clock, for timers sleep with the machine and doze in hidden pages.
  #tick = () => {
    const now = Date.now();
    const dozed = Math.abs(now - this.#tickAt);
    this.#tickAt = now;
    if (dozed > 4 * HEALTHY) return this.#relink();
    for (const link of [this.#link, this.#attempt]) {
      if (!link || now - link.heard < (link.answers.size ? ANSWER : link.limit)) continue;
      // Scripts do not see pings, so an idle WebSocket looks like a dead one: ask for something.
      if (link.up && link.socket && !link.answers.size) this.#command(`subscribe ${path(this.#channels)}`);
      else this.#ended(link, failure({ message: 'the link is silent', mute: true }));
    }
    const { level, up, heard } = this.#link ?? {};
    if (heard - up > HEALTHY) {
      this.#tries = 0;
      if (!level) this.#climbWait = CLIMB;
    }
    if (level && !this.#attempt && now > this.#climbAt && !globalThis.document?.hidden) this.#open(0);
  };

  // The transports. Each throws when its link is over.
  #run = {
    websocket: async link => {
      link.signal.throwIfAborted();
      // With this parameter, a handshake whose Upgrade was stripped is refused and not held.
      const url = this.#url(this.#channels, { transport: 'websocket', after: this.cursor });
      const socket = (link.socket = new WebSocket(url.replace('http', 'ws'), ['tidings.v1', ...(this.#token ? [`tidings.bearer.${this.#token}`] : [])]));
      link.signal.onabort = () => socket.close();
      const { code, reason } = await new Promise((resolve, reject) => {
        socket.onmessage = ({ data }) => {
          try {
            this.#take(link, JSON.parse(data));
          } catch (error) {
            reject(error);
          }
        };
        // Node 22 tells of a refused handshake by the first of these alone.
        socket.onerror = socket.onclose = resolve;
      });
      // Browsers hide why a handshake was refused. A poll is told.
      if (!link.up) await this.#ask(this.#channels, { transport: 'poll', wait: 0 }, link);
      // Going away, restart, try again later. For good: policy, and what an application made up.
      const wait = { 1001: 2000, 1012: 2000, 1013: 2000 }[code];
      throw failure({ message: reason || 'the link ended', code, wait, final: code === 1008 || code >= 4000 });
    },

    sse: async link => {
      let rest = '', wait;
      for await (const part of this.#read(link, { transport: 'sse', format: 'json' })) {
        const blocks = (rest + part).split('\n\n');
        rest = blocks.pop();
        for (const block of blocks) {
          const { id, event, data, retry } = Object.fromEntries(block.split('\n').map(line => line.split(/:\s?(.*)/s)));
          link.base = retry ?? link.base;
          // Alone, it is a farewell.
          wait = id ? undefined : retry;
          if (id) this.#take(link, event === 'gap' ? { gap: JSON.parse(data) } : data ? JSON.parse(data) : { cursor: id });
        }
      }
      throw failure({ message: 'the link ended', wait: wait && +wait });
    },

    poll: async link => {
      // The first is answered at once.
      for (let wait = 0; ; wait = 25) {
        link.heard = Date.now();
        link.limit = 1000 * wait + ANSWER;
        let text = '';
        for await (const part of this.#read(link, { transport: 'poll', wait })) text += part;
        const { gap, messages, cursor } = JSON.parse(text);
        for (const piece of [{ gap }, ...messages, { cursor }]) this.#take(link, piece);
      }
    },
  };

  // What is answered, in pieces. Each is a sign of life, for a long answer may take its time.
  async *#read(link, query) {
    const { body } = await this.#ask(this.#channels, { ...query, after: this.cursor }, link);
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part; !(part = await reader.read()).done; yield part.value) link.heard = Date.now();
  }

  async #ask(names, query, { signal = AbortSignal.any([this.#life.signal, AbortSignal.timeout(3 * ANSWER)]), headers, ...more } = {}) {
    this.#token ??= await this.#renew?.();
    if (this.#token) headers = { ...headers, Authorization: `Bearer ${this.#token}` };
    const answer = await fetch(this.#url(names, query), { signal, headers, ...more });
    const { status, ok } = answer;
    if (ok) {
      this.#isRenewed = false;
      return answer;
    }
    const { error } = await answer.json().catch(() => ({}));
    const wait = 1000 * answer.headers.get('Retry-After') || undefined;
    throw failure({ message: `HTTP ${status}`, status, ...error, wait, final: error?.code && /^4(?!08|29)/.test(status) });
  }

  #url(names, query) {
    // JSON leaves out what is undefined.
    return `${this.#base}channels/${path(names)}?${new URLSearchParams(JSON.parse(JSON.stringify(query)))}`;
  }

  // Whether a new token may help: once, until something is granted.
  #renews({ code }) {
    if (!this.#renew || this.#isRenewed || !/1008|token/.test(code)) return;
    this.#token = undefined;
    return (this.#isRenewed = true);
  }
}

const setOf = channels => new Set(String(channels).split(',').filter(Boolean));
const path = names => [...names].map(encodeURIComponent).join();
const failure = details => Object.assign(new Error(details.message), details);

function drop(link) {
  link?.abort();
  link?.answers.forEach(answer => answer({}));
}

// Full jitter: those who were cut together do not come back together. The first time within a
// second, for most cuts are no fault of the server; then by the time it named, if it did.
const delay = (tries, { wait = 0, base = 1000 }) => wait + Math.random() * Math.min(tries ? base * 2 ** tries : 1000, 30_000);

// Numbers have no leading zeros, so of two in one epoch the longer is the higher. They outgrow 2^53.
const isAfter = (cursor, than = '') =>
  cursor && (cursor.split('-')[0] !== than.split('-')[0] || cursor.padStart(32) > than.padStart(32));
