// Media keys in the browser: what the agreement decided, handed to livekit-client's frame encryption.
//
// LiveKit's keys are slots: 16 per identity, the slot's number is the last byte of every frame. The page keeps the list
// of current keys itself (`KeyRing`) and gives each connection a fresh provider (`CallKeys`) and worker, because
// livekit-client's provider never forgets a key and, on connecting again, moves the sending index to the last index set
// for anybody: a provider used twice sent under a key of sixteen epochs ago.

import { BaseKeyProvider } from 'livekit-client';
import { keyOptions } from './strictworker.ts';

/** A key that nobody knows, for slots that livekit-client cannot empty. */
function junkKey(): Promise<CryptoKey> {
  const secret = crypto.getRandomValues(new Uint8Array(32));
  return crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits', 'deriveKey']);
}

/** livekit-client's key provider for one connection. */
export class CallKeys extends BaseKeyProvider {
  constructor() {
    super({ ...keyOptions });
  }

  set(identity: string, index: number, key: CryptoKey): void {
    this.onSetEncryptionKey(key, identity, index);
  }
}

/** What a connection offers to the ring. */
export interface KeySink {
  /** Told before the key itself, so that the worker's guard knows the index. */
  setOwnIndex(index: number): void;
  set(identity: string, index: number, key: CryptoKey): void;
}

interface Slot {
  readonly index: number;
  readonly key: CryptoKey;
}

/** All keys that are valid now. Owned by the session; survives connections, never leaves memory. */
export class KeyRing {
  /** Identity of this page in LiveKit. */
  readonly #own: string;
  #sending: Slot | undefined;
  #receiving = new Map<string, Map<number, CryptoKey>>();
  #sink: KeySink | undefined;

  constructor(own: string) {
    this.#own = own;
  }

  /** True when there is a key to send with. */
  get canSend(): boolean {
    return this.#sending !== undefined;
  }

  /** Gives a new connection every current key; from now on changes go there. */
  attach(sink: KeySink): void {
    this.#sink = sink;
    for (const [identity, slots] of this.#receiving) {
      for (const [index, key] of slots) sink.set(identity, index, key);
    }
    if (this.#sending) this.#give(this.#sending);
  }

  detach(): void {
    this.#sink = undefined;
  }

  /** From now on this page sends under this key. */
  send(index: number, key: CryptoKey): void {
    this.#sending = { index, key };
    this.#give(this.#sending);
  }

  /** Destroys the key in use. The worker's slot gets a key that nobody knows: what still slips out stays shut. */
  async stopSending(): Promise<void> {
    const sending = this.#sending;
    const sink = this.#sink;
    if (!sending) return;
    this.#sending = undefined;
    const junk = await junkKey();
    if (!this.#sending && sink === this.#sink) sink?.set(this.#own, sending.index, junk);
  }

  /** Frames of this member under this index can be opened from now on. */
  receive(identity: string, index: number, key: CryptoKey): void {
    if (identity === this.#own) throw new Error('own key is never a receiving key');
    let slots = this.#receiving.get(identity);
    if (!slots) this.#receiving.set(identity, (slots = new Map()));
    slots.set(index, key);
    this.#sink?.set(identity, index, key);
  }

  /** Forgets a member's key. The worker cannot forget one: its slot is overwritten with a random key. */
  async retire(identity: string, index: number): Promise<void> {
    const slots = this.#receiving.get(identity);
    const retired = slots?.get(index);
    if (!slots || !retired) return;
    const sink = this.#sink;
    slots.delete(index);
    if (slots.size === 0) this.#receiving.delete(identity);
    const junk = await junkKey();
    // A new key may have taken the slot while the junk was made; it must stay.
    if (this.#receiving.get(identity)?.has(index) || sink !== this.#sink) return;
    sink?.set(identity, index, junk);
  }

  /** Forgets everything of a member. */
  async forget(identity: string): Promise<void> {
    const indexes = [...(this.#receiving.get(identity)?.keys() ?? [])];
    await Promise.all(indexes.map((index) => this.retire(identity, index)));
  }

  #give(slot: Slot): void {
    this.#sink?.setOwnIndex(slot.index);
    this.#sink?.set(this.#own, slot.index, slot.key);
  }
}
