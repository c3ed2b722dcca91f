/** One message. */
export interface Message {
  /** The cursor just after it. */
  id: string;
  channel: string;
  /** The event name it was published with. */
  event?: string;
  /** The media type it was published with. */
  type?: string;
  /** Unix milliseconds at which the server took it; for people. */
  time: number;
  /** Text, or bytes if it was published as bytes. */
  data: string | Uint8Array;
  gap?: undefined;
}

/** A loss: messages after `after`, through `through`, may be missing. */
export interface Gap {
  after: string;
  through: string;
  /** Where delivery goes on. */
  cursor: string;
  /** `evicted`: no longer kept. Otherwise: forget what you know, everything kept follows. */
  reason: 'evicted' | 'epoch' | 'future' | 'unknown';
}

/** A loss in its place among the messages of a loop, which has no field of theirs. */
export type Loss = { gap: Gap } & { [field in Exclude<keyof Message, 'gap'>]?: undefined };

/**
 * `connecting`: no transport has brought anything yet. `open`: messages come. `waiting`: the next
 * try comes later. `idle`: there are no channels. `closed`: for good.
 */
export type State = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed';

export type Transport = 'websocket' | 'sse' | 'poll';

/** Why a link ended, or why a call was refused. */
export interface TidingsError extends Error {
  /** The server's stable code, as `message_too_large`; for a WebSocket's end its close code. */
  code?: string | number;
  /** The status of the HTTP answer. */
  status?: number;
  /** Whose link it was. */
  transport?: Transport;
  /** The server asked to wait so many milliseconds. */
  wait?: number;
  /** The client has given up: trying again would not help. */
  final?: boolean;
}

export interface Options {
  /** Names, or names joined by commas. None: a client that only publishes. */
  channels?: string | readonly string[];
  /** A cursor, `now` (the default) or `earliest`. */
  after?: string;
  /** A bearer token, or what gives a fresh one when it is first needed and when the server refuses it. */
  token?: string | (() => string | Promise<string>);
  /** Which transports may be used, the best first. Default: all three. Without `WebSocket` it is left out. */
  transports?: readonly Transport[];
  /** Closes the client when it is aborted. */
  signal?: AbortSignal;
}

export interface PublishOptions {
  event?: string;
  /** A media type. Default: that of the `Blob`; for other bytes `application/octet-stream`. */
  type?: string;
  /** The idempotency key: with the same one, the same message is published once. Default: a random one. */
  key?: string;
}

export interface Published {
  id: string;
  channel: string;
  /** How many connections were attached just before. */
  subscribers: number;
}

export interface TidingsEvents {
  message: CustomEvent<Message>;
  gap: CustomEvent<Gap>;
  state: CustomEvent<State>;
  transport: CustomEvent<Transport>;
  /** A link ended, or could not begin. The client goes on by itself unless `detail.final`. */
  error: CustomEvent<TidingsError>;
}

export interface Tidings extends EventTarget, AsyncIterable<Message | Loss> {
  readonly state: State;
  /** The transport that delivers, or that did so last. */
  readonly transport: Transport | undefined;
  /** After the last message that was delivered. Keep it, and give it to `after` later. */
  readonly cursor: string | undefined;

  /**
   * Resolves when the server has taken the message, rejects with its refusal, and with a `TypeError`
   * for other data. Before the first link is open it waits for that, if the client reads the channel
   * and has no cursor: so the client hears what it publishes. It waits no longer than the first try
   * of each transport.
   */
  publish(channel: string, data: string | ArrayBuffer | ArrayBufferView | Blob, options?: PublishOptions): Promise<Published>;
  /** More channels, from the cursor on. Rejects, and changes nothing, if the server refuses them. */
  subscribe(channels: string | readonly string[]): Promise<void>;
  unsubscribe(channels: string | readonly string[]): Promise<void>;
  /** Ends the client and every loop over it. To leave a loop by `break` does not. */
  close(): void;

  addEventListener<T extends keyof TidingsEvents>(
    type: T,
    listener: ((event: TidingsEvents[T]) => void) | null,
    options?: Parameters<EventTarget['addEventListener']>[2],
  ): void;
  addEventListener(...listener: Parameters<EventTarget['addEventListener']>): void;
  removeEventListener<T extends keyof TidingsEvents>(
    type: T,
    listener: ((event: TidingsEvents[T]) => void) | null,
    options?: Parameters<EventTarget['removeEventListener']>[2],
  ): void;
  removeEventListener(...listener: Parameters<EventTarget['removeEventListener']>): void;
}

/**
 * Connects to the server at `url`: its root, such as `https://push.example.com` or `/`. Throws a
 * `TypeError` if that is no URL, or if none of the transports is one that works here.
 */
export function connect(url: string | URL, options?: Options): Tidings;
