// The only door between livekit-client and its frame-encryption worker.
//
// livekit-client lets the SFU decide, by what it announces, which tracks are decrypted and which pass through as they
// are: `encryptionEnabledMap` in its worker is keyed by identity and set from every TrackInfo, and both directions pass
// frames through in the clear while the value is not true. The worker's file is used unmodified; instead every message
// to it goes through this class, which knows what the session's members agreed on. Read against livekit-client 2.23.0;
// a test fails when the version changes, until this has been read again.
//
//   violation  the far end, or the SFU, tries to switch encryption off or to move keys. The call ends.
//   refusal    the message concerns somebody who is not a member (yet). It does not reach the worker: such a track has
//              no key and no encryption state there, and the worker drops its frames.
//
// What is refused, and why:
//   1. `enable` false, for anybody. Before livekit-client has heard of our own `enable(true)` it posts a false for our
//      own identity; that one is swallowed, because the worker was told `true` by us before anything else.
//   2. `setSifTrailer`: lets the server inject frames of its own. `ratchetRequest`: keys come from the agreement alone.
//   3. `encode` for another identity than ours, `decode` for our own (reflection), `setKey` for a stranger.
//   4. A remote track under the id of our own track. The worker finds its cryptor by track id alone, whatever the
//      identity: a `decode`, `updateCodec` or `removeTransform` that carries our camera's id would give our own cryptor
//      to another identity or to none, whose state is unknown, and the worker sends in the clear then. The SFU chooses
//      the ids of remote tracks, and knows ours.
//   5. Moving our sending index: livekit-client posts all keys again on each signal connection and moves the index to
//      the last one set for *anybody*. Only the index that the agreement chose is passed on as current.
//   6. Data encryption of livekit-client: it uses the media key with no order and no replay check.
//
// On browsers with RTCRtpScriptTransform the streams do not travel through postMessage; `guardScriptTransform` puts
// rule 3 and 4 in front of that constructor.

/** What the worker must not do without: the options that the key provider is built with. */
export const keyOptions = {
  sharedKey: false,
  ratchetWindowSize: 0,
  failureTolerance: -1,
  keyringSize: 16,
} as const;

/** The SFU tried something that would weaken the encryption. The call must end. */
export class ViolationError extends Error {
  override name = 'ViolationError';
}

/** The message concerns somebody who is not a member; it was not passed on. */
export class RefusedError extends Error {
  override name = 'RefusedError';
}

export interface StrictOptions {
  /** Identity of this page in LiveKit. */
  readonly own: string;
  /** Called once, before the message's sender sees the error: stop the devices and the connection here. */
  readonly onViolation: (error: ViolationError) => void;
}

interface Message {
  readonly kind: string;
  readonly data?: Readonly<Record<string, unknown>>;
}

/** A track id, whose it is, and in which direction. One id never changes its direction. */
interface Binding {
  readonly kind: 'encode' | 'decode';
  readonly identity: string;
  released: boolean;
}

/** What is needed of Worker. */
interface Base extends EventTarget {
  postMessage(message: unknown, transfer?: unknown): void;
  terminate(): void;
}

/** What the page may ask of a strict worker. */
export interface Strict {
  /** The other members' identities. Whoever is missing loses decryption of new tracks at once. */
  setMembers(identities: Iterable<string>): void;
  /** The one index under which this page sends. */
  setOwnIndex(index: number): void;
  /** For guardScriptTransform: throws unless this stream may be given to the worker. */
  checkTransform(options: unknown): void;
}

// A mixin's constructor has to be (...args: any[]) (TypeScript handbook, "Mixins").
type Constructor = new (...args: any[]) => Base;

function text(value: unknown, what: string): string {
  if (typeof value !== 'string' || value === '') throw new ViolationError(`${what} is missing`);
  return value;
}

/** Makes the strict class over a Worker class; tests put a false one underneath. */
export function strictOver<B extends Constructor>(Below: B) {
  return class StrictWorker extends Below implements Strict {
    #o: StrictOptions | undefined;
    #members = new Set<string>();
    /** Members-to-be whose encrypted tracks livekit-client has already seen. */
    #announced = new Set<string>();
    #bindings = new Map<string, Binding>();
    #ownIndex: number | undefined;
    #ownAnswers = 0;
    #initialised = false;
    #enabled = false;
    #violated = false;

    /** Must be called once, before the worker is given to livekit-client. */
    guard(options: StrictOptions): this {
      if (this.#o) throw new Error('strict worker is already guarded');
      this.#o = options;
      this.addEventListener('message', (event) => this.#answer(event as MessageEvent));
      return this;
    }

    setMembers(identities: Iterable<string>): void {
      this.#members = new Set(identities);
      this.#members.delete(this.#own);
      for (const identity of this.#members) {
        if (this.#announced.delete(identity)) this.#enable(identity);
      }
    }

    setOwnIndex(index: number): void {
      this.#ownIndex = index;
    }

    override postMessage(message: unknown, transfer?: unknown): void {
      if (this.#violated) throw new ViolationError('the worker is closed');
      const m = message as Message;
      const passed = this.#judged(() => this.#judge(m));
      if (passed === undefined) return;
      if (transfer === undefined) super.postMessage(passed);
      else super.postMessage(passed, transfer);
      if (m.kind === 'init') this.#enableOwn();
    }

    checkTransform(options: unknown): void {
      if (this.#violated) throw new ViolationError('the worker is closed');
      const o = options as Record<string, unknown>;
      this.#judged(() => this.#bind(String(o['kind']), o));
    }

    get #own(): string {
      if (!this.#o) throw new Error('strict worker is not guarded');
      return this.#o.own;
    }

    #judged<T>(judge: () => T): T {
      try {
        return judge();
      } catch (error) {
        if (error instanceof ViolationError) this.#violate(error);
        throw error;
      }
    }

    #violate(error: ViolationError): void {
      this.#violated = true;
      this.#o?.onViolation(error);
      this.terminate();
    }

    /** Returns the message to pass on, or undefined to swallow it. */
    #judge(m: Message): Message | undefined {
      const data = m.data ?? {};
      switch (m.kind) {
        case 'init':
          return this.#init(m, data);
        case 'setLogLevel':
          return m;
        case 'enable':
          return this.#judgeEnable(m, data);
        case 'setKey':
          return this.#judgeKey(m, data);
        case 'encode':
        case 'decode':
          this.#bind(m.kind, data);
          return m;
        case 'removeTransform':
          return this.#release(m, data);
        case 'updateCodec':
          return this.#rebind(m, data);
        case 'setRTPMap':
          if (data['participantIdentity'] !== this.#own) throw new ViolationError('codec map for another identity');
          return m;
        case 'setSifTrailer':
        case 'ratchetRequest':
        case 'encryptDataRequest':
        case 'decryptDataRequest':
          return undefined;
        default:
          throw new ViolationError(`unknown worker message ${JSON.stringify(m.kind)}`);
      }
    }

    #init(m: Message, data: NonNullable<Message['data']>): Message {
      if (this.#initialised) throw new ViolationError('worker is initialised twice');
      const options = (data['keyProviderOptions'] ?? {}) as Record<string, unknown>;
      for (const [name, want] of Object.entries(keyOptions)) {
        if (options[name] !== want) throw new ViolationError(`key option ${name} is not ${want}`);
      }
      this.#initialised = true;
      return m;
    }

    #judgeEnable(m: Message, data: NonNullable<Message['data']>): Message | undefined {
      const identity = text(data['participantIdentity'], 'identity');
      if (data['enabled'] !== true) {
        if (identity === this.#own && !this.#enabled) return undefined;
        throw new ViolationError('encryption was to be switched off');
      }
      if (identity === this.#own) {
        this.#enabled = true;
        return m;
      }
      if (this.#members.has(identity)) return m;
      this.#announced.add(identity);
      return undefined;
    }

    #judgeKey(m: Message, data: NonNullable<Message['data']>): Message | undefined {
      const identity = text(data['participantIdentity'], 'identity');
      if (!Number.isInteger(data['keyIndex'])) throw new ViolationError('key without an index');
      if (identity === this.#own) {
        const current = data['keyIndex'] === this.#ownIndex;
        return { kind: m.kind, data: { ...data, updateCurrentKeyIndex: current } };
      }
      // Swallowed, not thrown: livekit-client posts every key again in one loop, those of former members too.
      return this.#members.has(identity) ? m : undefined;
    }

    #bind(kind: string, data: NonNullable<Message['data']>): void {
      const identity = text(data['participantIdentity'], 'identity');
      const trackId = text(data['trackId'], 'track id');
      const bound = this.#bindings.get(trackId);
      if (kind === 'encode') {
        if (identity !== this.#own) throw new ViolationError('sending under another identity');
        if (!this.#initialised) throw new ViolationError('sending before encryption is on');
        if (bound && bound.kind !== 'encode') throw new ViolationError('own track under the id of a remote one');
      } else if (kind === 'decode') {
        this.#checkRemote(identity, bound);
      } else {
        throw new ViolationError(`unknown transform ${JSON.stringify(kind)}`);
      }
      this.#bindings.set(trackId, { kind, identity, released: false });
    }

    #checkRemote(identity: string, bound: Binding | undefined): void {
      if (identity === this.#own) throw new ViolationError('own track sent back');
      if (bound?.kind === 'encode') throw new ViolationError('remote track under the id of an own one');
      if (bound && !bound.released && bound.identity !== identity) {
        throw new ViolationError('one track id for two members');
      }
      if (!this.#members.has(identity)) throw new RefusedError('track of somebody who is not a member');
    }

    #release(m: Message, data: NonNullable<Message['data']>): Message | undefined {
      const bound = this.#bindings.get(text(data['trackId'], 'track id'));
      if (bound?.kind === 'encode') throw new ViolationError('own track was to lose its encryption');
      if (!bound || bound.identity !== data['participantIdentity']) return undefined;
      bound.released = true;
      return m;
    }

    #rebind(m: Message, data: NonNullable<Message['data']>): Message | undefined {
      const identity = text(data['participantIdentity'], 'identity');
      const trackId = text(data['trackId'], 'track id');
      const previous = data['previousTrackId'];
      const bound = this.#bindings.get(trackId);
      if (identity === this.#own) {
        // Safari: tells the worker the codec of an own track once the server has said it.
        if (previous !== undefined || bound?.kind !== 'encode') throw new ViolationError('own track was to be moved');
        return m;
      }
      if (previous !== undefined && this.#bindings.get(String(previous))?.kind === 'encode') {
        throw new ViolationError('own track was to be given away');
      }
      this.#checkRemote(identity, bound);
      this.#bindings.set(trackId, { kind: 'decode', identity, released: false });
      return m;
    }

    #enableOwn(): void {
      // Before any sender can exist: in the worker an identity of unknown state sends in the clear.
      this.#ownAnswers++;
      this.#enable(this.#own);
    }

    #enable(participantIdentity: string): void {
      super.postMessage({ kind: 'enable', data: { enabled: true, participantIdentity } });
    }

    /** Hides from livekit-client the worker's answer to our own `enable`: it has not asked and would throw. */
    #answer(event: MessageEvent): void {
      const m = event.data as Message | undefined;
      if (m?.kind !== 'enable' || m.data?.['participantIdentity'] !== this.#own || this.#ownAnswers === 0) return;
      this.#ownAnswers--;
      event.stopImmediatePropagation();
    }
  };
}

/** A constructor like RTCRtpScriptTransform's. */
type TransformConstructor = new (worker: unknown, options?: unknown, transfer?: unknown[]) => object;

/**
 * Puts the rules for streams in front of RTCRtpScriptTransform, where the browser has it. A transform on any other
 * worker than a strict one is refused.
 */
export function guardScriptTransform(
  scope: { RTCRtpScriptTransform?: unknown },
  isStrict: (worker: unknown) => worker is Strict,
): void {
  const Original = scope.RTCRtpScriptTransform as TransformConstructor | undefined;
  if (!Original) return;
  scope.RTCRtpScriptTransform = class extends Original {
    constructor(worker: unknown, options?: unknown, transfer?: unknown[]) {
      if (!isStrict(worker)) throw new ViolationError('transform on an unknown worker');
      worker.checkTransform(options);
      super(worker, options, transfer);
    }
  };
}
