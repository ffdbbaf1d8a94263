// Sender keys: this end's generations and when each is switched to, and the keys of the others and when each is
// destroyed. Keys first, confirmation, then the switch: a frame that a browser cannot open costs it 3 s of picture.
// Methods return what the page has to do; member.ts says when. Ownership: one Keyring belongs to one Member, whose
// queue serialises every call.

import { deriveDataKey } from '../data/seal.ts';
import { Fault, type AgreedKey, type Effect } from './api.ts';
import { concat, equal, MalformedError, Reader, toHex, u32, type Bytes } from './bytes.ts';
import { identityOf, type Endpoint } from './document.ts';
import { sealInfo, secretHash } from './formulas.ts';
import { findPeer, type Peer, type Transcript } from './round.ts';
import { seal } from './suite.ts';
import type { Keys, Ready, Writer } from './wire.ts';

/** A join's new key is used at latest this long after own keys; receive keys of older T live as long after that. */
const switchMs = 2_000;
/** After a sender's newer key of the same T: its latest possible switch and the time frames may be under way. */
const rotatedMs = 4_000;
/** A key is used this long. */
const rotateMs = 600_000;

interface OwnKey {
  readonly key: AgreedKey;
  /** Hex of those who were given it. */
  readonly given: ReadonlySet<string>;
  readonly sentAt: number;
}

interface RecvKey {
  readonly T: Bytes;
  readonly gen: number;
  readonly index: number;
  retireAt: number | undefined;
}

interface Other {
  readonly D: Bytes;
  readonly eid: string;
  /** Highest generation taken, in any T: it only rises. */
  gen: number;
  /** The message that brought it. */
  message: Bytes | undefined;
  keys: RecvKey[];
  /** Highest generation of ours that it said it has. */
  ready: number;
}

export class Keyring {
  readonly #self: Endpoint;
  readonly #writer: Writer;
  #gen = 0;
  #inUse: OwnKey | undefined;
  #next: OwnKey | undefined;
  /** When the next rotation is due. */
  #rotateAt: number | undefined;
  /** Receive keys of older T are destroyed at this time. */
  #dropOlderAt: number | undefined;
  readonly #others = new Map<string, Other>();
  /** Hashes of all secrets seen in this session, own included: none is taken twice. */
  readonly #seen = new Set<string>();
  /** Those who can read what is sealed with the key in use. */
  #readers = new Set<string>();
  /** Own keys and ready of the T in force, for sending again. */
  #keysMessage: Bytes | undefined;
  #readyMessage: Bytes | undefined;

  constructor(self: Endpoint, writer: Writer) {
    this.#self = self;
    this.#writer = writer;
  }

  /** Own messages of the T in force, for a member who may have missed them. */
  get current(): Bytes[] {
    return [this.#keysMessage, this.#readyMessage].filter((m) => m !== undefined);
  }

  /** Whether at least one other member can read the key in use. */
  get someoneReads(): boolean {
    return this.#readers.size > 0;
  }

  /** The next time at which tick has something to do. */
  get deadline(): number | undefined {
    const times = [this.#rotateAt, this.#dropOlderAt, this.#next && this.#next.sentAt + switchMs];
    for (const o of this.#others.values()) times.push(...o.keys.map((k) => k.retireAt));
    const known = times.filter((t) => t !== undefined);
    return known.length > 0 ? Math.min(...known) : undefined;
  }

  /** A removal: nothing is sent under the old key and nothing received under the old keys, from this moment on. */
  stop(): Effect[] {
    const out: Effect[] = [];
    if (this.#inUse || this.#next) out.push({ t: 'dropSendKey' });
    this.#inUse = this.#next = this.#rotateAt = this.#dropOlderAt = undefined;
    this.#keysMessage = this.#readyMessage = undefined;
    this.#readers.clear();
    for (const o of this.#others.values()) this.#retire(o, out, () => true);
    return out;
  }

  /** A new T is in force: makes and announces this end's key for it. */
  async epoch(now: number, t: Transcript): Promise<Effect[]> {
    const out: Effect[] = [];
    this.#readyMessage = undefined;
    for (const [id, o] of this.#others) {
      if (findPeer(t, o.D)) continue;
      // Only those who left: their keys went with stop().
      this.#retire(o, out, () => true);
      this.#others.delete(id);
    }
    for (const p of t.peers) {
      const id = toHex(p.D);
      if (equal(p.D, this.#self.D) || this.#others.has(id)) continue;
      this.#others.set(id, { D: p.D, eid: identityOf(p.D), gen: 0, message: undefined, keys: [], ready: 0 });
    }
    out.push(...(await this.rotate(now, t)));
    return out;
  }

  /** Makes the next generation of this end's key under T and announces it. */
  async rotate(now: number, t: Transcript): Promise<Effect[]> {
    const gen = this.#gen + 1;
    const secret = crypto.getRandomValues(new Uint8Array(32));
    const hash = await secretHash(secret);
    const others = t.peers.filter((p) => !equal(p.D, this.#self.D));
    const sealed = await Promise.all(others.map((p) => this.#sealFor(t.T, p, gen, secret)));
    const message = await this.#writer.keys(t.e, t.T, gen, hash, sealed);
    const key = await agreedKey(secret, gen, t.T, this.#self.D);
    secret.fill(0);

    this.#gen = gen;
    this.#seen.add(toHex(hash));
    this.#keysMessage = message;
    this.#rotateAt = now + rotateMs;
    this.#next = { key, given: new Set(others.map((p) => toHex(p.D))), sentAt: now };
    const out: Effect[] = [{ t: 'send', message }];
    out.push(...this.#settle(now, t));
    return out;
  }

  async #sealFor(T: Bytes, to: Peer, gen: number, secret: Bytes) {
    const info = await sealInfo(T, this.#self.D, to.D);
    try {
      return { to: to.D, bytes: await seal(to.document.kemPublic, info, concat(u32(gen), secret)) };
    } catch {
      throw new Fault('document', to.D);
    }
  }

  /** Takes a validly signed keys message of a member of the T in force. */
  async takeKeys(now: number, t: Transcript, m: Keys): Promise<Effect[]> {
    const other = this.#others.get(toHex(m.from))!;
    if (m.gen < other.gen) return [];
    if (m.gen === other.gen) {
      if (other.message && !equal(other.message, m.raw)) throw new Fault('keys', m.from);
      return [];
    }
    const secret = await this.#openKeys(t, m);
    const key = await agreedKey(secret, m.gen, t.T, m.from);
    secret.fill(0);
    this.#seen.add(toHex(m.secretHash));
    other.gen = m.gen;
    other.message = m.raw;
    for (const k of other.keys) {
      if (equal(k.T, t.T)) k.retireAt = Math.min(k.retireAt ?? Infinity, now + rotatedMs);
    }
    // The new key takes the slot: retiring what stood there must not destroy it later.
    other.keys = other.keys.filter((k) => k.index !== key.index);
    other.keys.push({ T: t.T, gen: m.gen, index: key.index, retireAt: undefined });
    this.#readyMessage = await this.#writer.ready(t.e, t.T, t.peers.map((p) => this.#genOf(p)));
    return [
      { t: 'recvKey', D: m.from, eid: other.eid, key },
      { t: 'send', message: this.#readyMessage },
    ];
  }

  #genOf(p: Peer): number {
    return equal(p.D, this.#self.D) ? this.#gen : this.#others.get(toHex(p.D))!.gen;
  }

  async #openKeys(t: Transcript, m: Keys): Promise<Bytes> {
    const fault = new Fault('keys', m.from);
    const others = t.peers.filter((p) => !equal(p.D, m.from));
    const listed = m.sealed.length === others.length && others.every((p, i) => equal(p.D, m.sealed[i]!.to));
    if (m.gen === 0 || m.idx !== m.gen % 16 || !listed || this.#seen.has(toHex(m.secretHash))) throw fault;
    const mine = m.sealed.find((s) => equal(s.to, this.#self.D))!;
    let gen: number;
    let secret: Bytes;
    try {
      const opened = await this.#self.keys.open(mine.bytes, await sealInfo(t.T, m.from, this.#self.D));
      const r = new Reader(opened);
      gen = r.u32();
      secret = r.take(32);
      r.end();
    } catch (err) {
      if (err instanceof MalformedError) throw fault;
      throw err;
    }
    if (gen !== m.gen || !equal(await secretHash(secret), m.secretHash)) throw fault;
    return secret;
  }

  /** Takes a validly signed ready of a member of the T in force. */
  takeReady(now: number, t: Transcript, m: Ready): Effect[] {
    const at = t.peers.findIndex((p) => equal(p.D, this.#self.D));
    const gen = m.gens[at];
    if (m.gens.length !== t.peers.length || gen === undefined || gen > this.#gen) throw new Fault('keys', m.from);
    const other = this.#others.get(toHex(m.from))!;
    other.ready = Math.max(other.ready, gen);
    return this.#settle(now, t);
  }

  /** Lets time pass. */
  async tick(now: number, t: Transcript): Promise<Effect[]> {
    const out: Effect[] = [];
    if (this.#rotateAt !== undefined && now >= this.#rotateAt) out.push(...(await this.rotate(now, t)));
    out.push(...this.#settle(now, t));
    const dropOlder = this.#dropOlderAt !== undefined && now >= this.#dropOlderAt;
    if (dropOlder) this.#dropOlderAt = undefined;
    for (const o of this.#others.values()) {
      this.#retire(o, out, (k) => (dropOlder && !equal(k.T, t.T)) || (k.retireAt !== undefined && now >= k.retireAt));
    }
    return out;
  }

  /** Switches to the next key if it is time, and tells who has just become able to read. */
  #settle(now: number, t: Transcript): Effect[] {
    const out: Effect[] = [];
    const next = this.#next;
    // With no key in use there is nothing that a frame could still be read under: use it as soon as it is sealed.
    if (next && (!this.#inUse || this.#allReady(next) || now >= next.sentAt + switchMs)) {
      this.#inUse = next;
      this.#next = undefined;
      this.#dropOlderAt = now + switchMs;
      out.push({ t: 'sendKey', eid: this.#self.eid, key: next.key });
    }
    const readers = new Set<string>();
    for (const p of t.peers) {
      const id = toHex(p.D);
      if (!this.#inUse?.given.has(id) || this.#others.get(id)!.ready < this.#inUse.key.gen) continue;
      readers.add(id);
      if (!this.#readers.has(id)) out.push({ t: 'keyFrame', D: p.D, eid: identityOf(p.D) });
    }
    this.#readers = readers;
    return out;
  }

  #allReady(k: OwnKey): boolean {
    for (const id of k.given) if ((this.#others.get(id)?.ready ?? 0) < k.key.gen) return false;
    return true;
  }

  #retire(o: Other, out: Effect[], which: (k: RecvKey) => boolean): void {
    o.keys = o.keys.filter((k) => {
      if (!which(k)) return true;
      out.push({ t: 'retireRecv', D: o.D, eid: o.eid, gen: k.gen, index: k.index });
      return false;
    });
  }
}

async function agreedKey(secret: Bytes, gen: number, T: Bytes, from: Bytes): Promise<AgreedKey> {
  const frames = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits', 'deriveKey']);
  return { gen, index: gen % 16, frames, data: { key: await deriveDataKey(secret), gen, T, from } };
}
