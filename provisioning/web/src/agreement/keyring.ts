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
import { seal, type Random } from './suite.ts';
import type { Keys, Ready, Writer } from './wire.ts';

/** A new key is used at latest this long after it was announced. */
const switchMs = 2_000;
/** From a switch to the end of the old receive keys: frames may be under way. */
const drainMs = 2_000;
/** A key is used this long. */
const rotateMs = 600_000;
/** Bounds on memory; an honest session stays far below. */
const maxSecrets = 4096;
const maxRecvKeys = 8;

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
  /** Infinity while it is the sender's newest. */
  retireAt: number;
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
  readonly #random: Random;
  #gen = 0;
  #inUse: OwnKey | undefined;
  #next: OwnKey | undefined;
  /** When the next rotation is due. */
  #rotateAt: number | undefined;
  readonly #others = new Map<string, Other>();
  /** Hashes of all secrets seen in this session, own included: none is taken twice. */
  readonly #seen = new Set<string>();
  /** Those who can read what is sealed with the key in use. */
  #readers = new Set<string>();
  /** Own keys and ready of the T in force, for sending again. */
  #keysMessage: Bytes | undefined;
  #readyMessage: Bytes | undefined;
  #readyGens: readonly number[] = [];

  constructor(self: Endpoint, writer: Writer, random: Random) {
    this.#self = self;
    this.#writer = writer;
    this.#random = random;
  }

  /** Own messages of the T in force, for a member who may have missed them. */
  get current(): Bytes[] {
    return [this.#keysMessage, this.#readyMessage].filter((m) => m !== undefined);
  }

  /** Whether at least one other member can read the key in use. */
  get someoneReads(): boolean {
    return this.#readers.size > 0;
  }

  /** The next time at which tick or update has something to do. */
  get deadline(): number | undefined {
    const times = [this.#next ? this.#next.sentAt + switchMs : this.#rotateAt];
    for (const o of this.#others.values()) times.push(...o.keys.map((k) => k.retireAt));
    const known = times.filter((t) => t !== undefined && t !== Infinity) as number[];
    return known.length > 0 ? Math.min(...known) : undefined;
  }

  /** A removal: nothing is sent under the old key and nothing received under the old keys, from this moment on. */
  stop(): Effect[] {
    const out: Effect[] = [];
    for (const o of this.#others.values()) this.#retire(o, out, () => true);
    if (this.#inUse) out.push({ t: 'dropSendKey' });
    this.#inUse = this.#next = this.#rotateAt = undefined;
    this.#keysMessage = this.#readyMessage = undefined;
    this.#readers.clear();
    return out;
  }

  /** A new T is in force: makes and announces this end's key for it. Those who left had their keys destroyed by stop. */
  epoch(now: number, t: Transcript): Promise<Effect[]> {
    this.#readyMessage = undefined;
    this.#readyGens = [];
    for (const [id, o] of this.#others) if (!findPeer(t, o.D)) this.#others.delete(id);
    for (const p of t.peers) {
      const id = toHex(p.D);
      if (equal(p.D, this.#self.D) || this.#others.has(id)) continue;
      this.#others.set(id, { D: p.D, eid: identityOf(p.D), gen: 0, message: undefined, keys: [], ready: 0 });
    }
    return this.#generate(now, t);
  }

  /** Rotates this end's key under the same T, unless a rotation is under way. */
  async rotate(now: number, t: Transcript): Promise<Effect[]> {
    return this.#next ? [] : this.#generate(now, t);
  }

  /** Makes the next generation of this end's key under T and announces it. */
  async #generate(now: number, t: Transcript): Promise<Effect[]> {
    const gen = this.#gen + 1;
    const secret = this.#random();
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
    // With no key in use there is nothing that a frame could still be read under: use it as soon as it is sealed.
    if (!this.#inUse) this.#switch(now, t, out);
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
      if (!other.message || !equal(other.message, m.raw)) throw new Fault('keys', m.from);
      return [];
    }
    const secret = await this.#openKeys(t, m);
    const key = await agreedKey(secret, m.gen, t.T, m.from);
    secret.fill(0);
    this.#seen.add(toHex(m.secretHash));
    other.gen = m.gen;
    other.message = m.raw;
    const out: Effect[] = [];
    for (const k of other.keys) k.retireAt = Math.min(k.retireAt, now + switchMs + drainMs);
    // The new key takes its slot: retiring what stood there must not destroy it later.
    other.keys = other.keys.filter((k) => k.index !== key.index);
    const oldest = other.keys.length >= maxRecvKeys ? other.keys[0] : undefined;
    if (oldest) this.#retire(other, out, (k) => k === oldest);
    other.keys.push({ T: t.T, gen: m.gen, index: key.index, retireAt: Infinity });
    out.push({ t: 'recvKey', D: m.from, eid: other.eid, key });
    return out;
  }

  async #openKeys(t: Transcript, m: Keys): Promise<Bytes> {
    const fault = new Fault('keys', m.from);
    const others = t.peers.filter((p) => !equal(p.D, m.from));
    const listed = m.sealed.length === others.length && others.every((p, i) => equal(p.D, m.sealed[i]!.to));
    const again = this.#seen.has(toHex(m.secretHash)) || this.#seen.size >= maxSecrets;
    if (m.idx !== m.gen % 16 || !listed || again) throw fault;
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

  /** Takes a validly signed ready of a member of the T in force. Entries only ever rise. */
  takeReady(t: Transcript, m: Ready): void {
    const gen = m.gens[t.peers.findIndex((p) => equal(p.D, this.#self.D))];
    if (m.gens.length !== t.peers.length || gen === undefined || gen > this.#gen) return;
    const other = this.#others.get(toHex(m.from))!;
    other.ready = Math.max(other.ready, gen);
  }

  /** Lets time pass: the rotation that is due. */
  async tick(now: number, t: Transcript): Promise<Effect[]> {
    return this.#rotateAt !== undefined && now >= this.#rotateAt ? this.rotate(now, t) : [];
  }

  /** Brings switching, destruction of old keys and own ready up to date; the last step of every call. */
  async update(now: number, t: Transcript): Promise<Effect[]> {
    const out: Effect[] = [];
    const next = this.#next;
    if (next && (this.#allReady(next) || now >= next.sentAt + switchMs)) this.#switch(now, t, out);
    for (const o of this.#others.values()) this.#retire(o, out, (k) => now >= k.retireAt);
    await this.#sayReady(t, out);
    return out;
  }

  #switch(now: number, t: Transcript, out: Effect[]): void {
    this.#inUse = this.#next!;
    this.#next = undefined;
    out.push({ t: 'sendKey', eid: this.#self.eid, key: this.#inUse.key });
    for (const o of this.#others.values()) {
      for (const k of o.keys) if (!equal(k.T, t.T)) k.retireAt = Math.min(k.retireAt, now + drainMs);
    }
  }

  /** Tells the others which keys of this T this end has, whenever that changes. */
  async #sayReady(t: Transcript, out: Effect[]): Promise<void> {
    const gens = t.peers.map((p) => {
      if (equal(p.D, this.#self.D)) return this.#gen;
      const other = this.#others.get(toHex(p.D))!;
      const newest = other.keys.at(-1);
      return newest && equal(newest.T, t.T) ? other.gen : 0;
    });
    const some = t.peers.some((p, i) => gens[i]! > 0 && !equal(p.D, this.#self.D));
    if (!some || gens.join() === this.#readyGens.join()) return;
    this.#readyGens = gens;
    this.#readyMessage = await this.#writer.ready(t.e, t.T, gens);
    out.push({ t: 'send', message: this.#readyMessage });
  }

  /** Key frame requests for those who have just become able to read what this end sends. */
  newReaders(t: Transcript): Effect[] {
    const out: Effect[] = [];
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
