// Keeps the page in the session's LiveKit room: a connection that ends is followed by a new one, with a fresh token,
// until the session is over. The loop is ours: livekit-client waits up to 7 s between tries.
//
//   idle ── admitted ──> connecting ── connected ──> there ── lost ──> connecting …
//
// A try starts at once, the next after 0.3 s, growing to 1 s, and only while the relay answers its probe: without a way
// to the hub there is none to the SFU either, and there is no token. When the probe is answered again after a cut and
// no picture comes over the present connection, it is given up at once: WebRTC itself needs up to half a minute to
// notice a dead path, and a path that comes back carries no picture for 3 s, until the browser asks for a key frame.

import type { Admission } from '../relay/messages.ts';

const firstWait = 300;
const longestWait = 1000;

/** What the line needs of a connection. */
export interface LineConnection {
  readonly isConnected: boolean;
  connect(admission: Admission): Promise<void>;
  close(): void;
}

export interface LineOptions<C extends LineConnection> {
  /** Makes a connection that calls `lost` of this line when it ends. */
  readonly make: () => C;
  /** Asks the hub for a fresh token; its answer comes to `admitted`. */
  readonly requestToken: () => boolean;
  /** True while the hub answers. */
  readonly reachable: () => boolean;
  readonly connected: (connection: C) => void;
  readonly disconnected: () => void;
  readonly failed?: (error: unknown) => void;
}

export class Line<C extends LineConnection> {
  readonly #o: LineOptions<C>;
  #connection: C | undefined;
  #there = false;
  #running = true;
  #tries = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: LineOptions<C>) {
    this.#o = options;
  }

  /** The connection while it is there. */
  get current(): C | undefined {
    return this.#there ? this.#connection : undefined;
  }

  /** A token has come: connect with it, unless a connection is there or on its way. */
  async admitted(admission: Admission): Promise<void> {
    if (!this.#running || this.#connection) return;
    clearTimeout(this.#timer);
    const connection = this.#o.make();
    this.#connection = connection;
    try {
      await connection.connect(admission);
    } catch (error) {
      connection.close();
      if (this.#connection !== connection) return;
      this.#connection = undefined;
      this.#o.failed?.(error);
      this.#again();
      return;
    }
    if (this.#connection !== connection) {
      connection.close();
      return;
    }
    this.#there = true;
    this.#tries = 0;
    this.#o.connected(connection);
  }

  /** The present connection has ended. */
  lost(): void {
    this.#drop();
    this.#again(0);
  }

  /** There was no token this time: ask again. */
  retry(): void {
    if (!this.#connection) this.#again();
  }

  /** The hub answers again after a cut: `alive` tells whether media still arrives over the present connection. */
  reachableAgain(alive: boolean): void {
    if (!this.#running || (this.#there && alive)) return;
    this.#drop();
    this.#again(0);
  }

  stop(): void {
    this.#running = false;
    clearTimeout(this.#timer);
    this.#drop();
  }

  #drop(): void {
    const was = this.#connection;
    const there = this.#there;
    this.#connection = undefined;
    this.#there = false;
    was?.close();
    if (there) this.#o.disconnected();
  }

  #again(wait = Math.min(firstWait * 1.5 ** this.#tries++, longestWait)): void {
    if (!this.#running) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (this.#connection) return;
      if (this.#o.reachable()) this.#o.requestToken();
      // Until the token comes, or if it never does.
      this.#again();
    }, wait);
  }
}
