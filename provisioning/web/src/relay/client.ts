// The page's connection to the relay: one WebSocket that comes back by itself.
//
// The relay carries two kinds of messages: text between the page and the hub, and binary messages of the key agreement
// between the members, which the hub passes on byte for byte. Nothing that arrives here is trusted by itself.
//
// A lost line is found by our own probe (a ping each second), because a browser notices a dead TCP connection only
// after minutes. When the probe is not answered for `silence`, the socket is given up and a new one is tried at once
// and then every 0.3 to 1 s. While there is no connection, messages are dropped, not queued: after each `welcome` both
// ends send their current messages again (`resync`), and an old one must not arrive late.
//
//   stopped ── start ──> connecting ── welcome ──> up ── silence, close ──> connecting …
//   any ── stop, 4001 (opened elsewhere), 4005 (the bearer has ended) ──> stopped

import { MalformedError } from '../agreement/bytes.ts';
import { readFromHub, type FromHub, type ToHub } from './messages.ts';

export const subprotocol = 'alcove.relay.v1';

/** PROTOCOL.md: at most 64 KiB in one key-agreement message. */
export const maxRelayed = 64 * 1024;

/** Close codes after which this bearer must not dial again (PROTOCOL.md). */
const closeReplaced = 4001;
const closeUnknownBearer = 4005;

/** How fast the line is probed and tried again, in milliseconds. */
export interface RelayTimes {
  readonly ping: number;
  readonly silence: number;
  /** Time that one attempt to connect may take: the first and the longest. */
  readonly attempt: number;
  readonly attemptMax: number;
  readonly retry: number;
  readonly retryMax: number;
}

export const relayTimes: RelayTimes = {
  ping: 1000,
  silence: 3000,
  attempt: 1500,
  attemptMax: 4000,
  retry: 300,
  retryMax: 1000,
};

export interface RelayEvents {
  /** A message of the hub, except `pong`. */
  control(message: FromHub): void;
  /** A key-agreement message of another member. */
  relayed(message: Uint8Array): void;
  /** The probe is answered again (or for the first time); `down` is how long it was not, in milliseconds. */
  up(down: number): void;
  /** The probe is not answered any more. */
  down(): void;
  /** No further connection is tried. */
  stopped(why: 'replaced' | 'refused'): void;
  /** Something that the hub sent was not of the protocol; it was dropped. */
  malformed(error: Error): void;
}

/** What the client needs of a browser's WebSocket. */
export interface Socket {
  binaryType: string;
  readonly readyState: number;
  onopen: ((event: Event) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  onerror: ((event: Event) => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export interface RelayOptions {
  readonly url: string;
  readonly bearer: string;
  readonly events: RelayEvents;
  readonly connect?: (url: string, protocol: string) => Socket;
  readonly times?: RelayTimes;
}

const open = 1;

export class RelayClient {
  readonly #o: Required<RelayOptions>;
  #socket: Socket | undefined;
  #welcomed = false;
  #running = false;
  #n = 0;
  #lastHeard = 0;
  #downSince: number;
  #isDown = true;
  #attempts = 0;
  #probe: ReturnType<typeof setInterval> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #deadline: ReturnType<typeof setTimeout> | undefined;

  constructor(options: RelayOptions) {
    this.#o = {
      connect: (url, protocol) => new WebSocket(url, protocol) as Socket,
      times: relayTimes,
      ...options,
    };
    this.#downSince = performance.now();
  }

  /** True while the probe is answered. */
  get isUp(): boolean {
    return !this.#isDown;
  }

  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#downSince = performance.now();
    this.#probe = setInterval(() => this.#tick(), this.#o.times.ping);
    this.#dial();
  }

  stop(): void {
    this.#running = false;
    clearInterval(this.#probe);
    clearTimeout(this.#retry);
    this.#drop();
  }

  /** Sends a text message; false when there is no connection, and then nothing was sent. */
  send(message: ToHub): boolean {
    return this.#welcomed && this.#write(JSON.stringify(message));
  }

  /** Sends a key-agreement message to the other members; false when there is no connection. */
  relay(message: Uint8Array<ArrayBuffer>): boolean {
    if (message.length > maxRelayed) throw new RangeError('message is too large for the relay');
    return this.#welcomed && this.#write(message);
  }

  /** The network says that it is back: try at once instead of waiting for the timer. */
  wake(): void {
    if (!this.#running || this.isUp) return;
    clearTimeout(this.#retry);
    this.#dial();
  }

  #write(data: string | Uint8Array<ArrayBuffer>): boolean {
    if (this.#socket?.readyState !== open) return false;
    this.#socket.send(data);
    return true;
  }

  #dial(): void {
    this.#drop();
    const { times } = this.#o;
    let socket: Socket;
    try {
      socket = this.#o.connect(this.#o.url, subprotocol);
    } catch {
      this.#again();
      return;
    }
    this.#socket = socket;
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => this.#write(JSON.stringify({ t: 'hello', bearer: this.#o.bearer } satisfies ToHub));
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#closed(event.code);
    const patience = Math.min(times.attempt * 1.5 ** this.#attempts, times.attemptMax);
    this.#deadline = setTimeout(() => this.#lost(), patience);
  }

  #receive(data: unknown): void {
    if (data instanceof ArrayBuffer) {
      this.#heard();
      if (this.#welcomed && data.byteLength <= maxRelayed) this.#o.events.relayed(new Uint8Array(data));
      return;
    }
    let message: FromHub;
    try {
      if (typeof data !== 'string') throw new MalformedError('relay message is neither text nor bytes');
      message = readFromHub(data);
    } catch (error) {
      this.#o.events.malformed(error as Error);
      return;
    }
    if (message.t === 'welcome') {
      clearTimeout(this.#deadline);
      this.#welcomed = true;
      this.#attempts = 0;
    }
    if (!this.#welcomed) return;
    this.#heard();
    if (message.t !== 'pong') this.#o.events.control(message);
  }

  #heard(): void {
    const now = performance.now();
    this.#lastHeard = now;
    if (!this.#isDown || !this.#welcomed) return;
    this.#isDown = false;
    this.#o.events.up(now - this.#downSince);
  }

  #tick(): void {
    if (!this.#welcomed) return;
    if (performance.now() - this.#lastHeard > this.#o.times.silence) {
      this.#lost();
      return;
    }
    this.#write(JSON.stringify({ t: 'ping', n: this.#n++ } satisfies ToHub));
  }

  #closed(code: number): void {
    if (code === closeReplaced) this.#end('replaced');
    else if (code === closeUnknownBearer) this.#end('refused');
    else this.#lost();
  }

  #end(why: 'replaced' | 'refused'): void {
    this.stop();
    this.#o.events.stopped(why);
  }

  #lost(): void {
    this.#drop();
    if (!this.#isDown) {
      this.#isDown = true;
      this.#downSince = this.#lastHeard;
      this.#o.events.down();
    }
    this.#again();
  }

  #again(): void {
    if (!this.#running) return;
    const { retry, retryMax } = this.#o.times;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#dial(), Math.min(retry * 1.5 ** this.#attempts, retryMax));
    this.#attempts++;
  }

  #drop(): void {
    clearTimeout(this.#deadline);
    this.#welcomed = false;
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
  }
}
