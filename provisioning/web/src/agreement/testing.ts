// For tests: a room that sequences as daemon/e2ee/agreement describes, without its waiting and queueing, and a relay
// that carries messages between it and members and lets a test lie about each.

import type { Effect, MemberConfig } from './api.ts';
import { concat, equal, lp, toHex, u32, u64, u8, utf8, type Bytes } from './bytes.ts';
import { documentHash, endpointOf, newEndpoint, roleCode, type Endpoint, type Role, type Session } from './document.ts';
import { commitment, firstTranscript, proposalHash } from './formulas.ts';
import { Keyring } from './keyring.ts';
import { Member } from './member.ts';
import { encodeProof, hubProof, readDeviceProof, type Level, type Proof } from './proof.ts';
import { documentOf, findPeer, Round, type Transcript } from './round.ts';
import { newEndpointKeys, systemRandom, verifySignature } from './suite.ts';
import { parse, roomMessage, Writer, type Commit, type Parsed, type Propose, type Reveal } from './wire.ts';
import { verifyP256 } from '../trust/p256.ts';

export const session: Session = { clinic: new Uint8Array(32).fill(0xc1), sid: new Uint8Array(16).fill(0x51) };

/** A room's identity key and the proof that it makes. */
export class DeviceKey {
  readonly #pair: CryptoKeyPair;
  readonly spki: Bytes;

  private constructor(pair: CryptoKeyPair, spki: Bytes) {
    this.#pair = pair;
    this.spki = spki;
  }

  static async make(): Promise<DeviceKey> {
    const pair = (await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, [
      'sign', 'verify',
    ])) as CryptoKeyPair;
    return new DeviceKey(pair, new Uint8Array(await crypto.subtle.exportKey('spki', pair.publicKey)));
  }

  async prove(D: Bytes, K: Bytes): Promise<Proof> {
    const message = concat(lp(utf8('alcove/proof-device/v1')), lp(D), lp(K));
    const algorithm = { name: 'ECDSA', hash: 'SHA-256' };
    const p1363 = new Uint8Array(await crypto.subtle.sign(algorithm, this.#pair.privateKey, message));
    return { kind: 'device', level: 3, body: concat(lp(this.spki), lp(p1363ToDer(p1363))) };
  }
}

function p1363ToDer(p: Bytes): Bytes {
  const integer = (bytes: Bytes) => {
    let value = bytes;
    while (value.length > 1 && value[0] === 0 && !(value[1]! & 0x80)) value = value.slice(1);
    if (value[0]! & 0x80) value = concat(u8(0), value);
    return concat(Uint8Array.of(2, value.length), value);
  };
  const body = concat(integer(p.slice(0, 32)), integer(p.slice(32)));
  return concat(Uint8Array.of(0x30, body.length), body);
}

/** A member's configuration that knows one room by its key. */
export function configFor(spki: Bytes, over: Partial<MemberConfig> = {}): MemberConfig {
  return {
    prove: () => hubProof,
    minLevel: { therapist: 1 },
    async verify({ proof, D, K }): Promise<Level | 0> {
      if (proof.kind !== 'device') return proof.kind === 'hub' ? 1 : 0;
      const device = readDeviceProof(proof, D, K);
      if (!equal(device.spki, spki)) throw new Error('another room');
      if (!(await verifyP256(device.spki, device.signature, device.message))) throw new Error('bad signature');
      return 3;
    },
    ...over,
  };
}

/** The sequencer. Its rounds are started by the test; everything else happens as messages arrive. */
export class Room {
  readonly endpoint: Endpoint;
  readonly key: DeviceKey;
  readonly #writer: Writer;
  readonly keyring: Keyring;
  readonly #config: MemberConfig;
  readonly out: Bytes[] = [];
  round: Round | undefined;
  current: Transcript | undefined;
  e = 0;
  #n = 0;
  now = 0;
  /** S's clock runs apart from everybody else's. */
  clock = 5_000_000;

  constructor(endpoint: Endpoint, key: DeviceKey) {
    this.endpoint = endpoint;
    this.key = key;
    this.#writer = new Writer(endpoint.document.sid, endpoint.D, endpoint.keys.sign);
    this.keyring = new Keyring(endpoint, this.#writer, systemRandom);
    this.#config = configFor(key.spki);
  }

  static async make(s: Session = session): Promise<Room> {
    const keys = await newEndpointKeys();
    const salt = crypto.getRandomValues(new Uint8Array(32));
    return new Room(await endpointOf(s, 'device', 'Room 1', keys, salt), await DeviceKey.make());
  }

  async chain(): Promise<Bytes> {
    return this.current?.T ?? (await firstTranscript(this.endpoint.document));
  }

  async admit(D: Bytes, role: Role, local = true, t: 'admit' | 'remove' = 'admit', prevT?: Bytes): Promise<Bytes> {
    const label = lp(utf8(`alcove/${t}/v1`));
    const body = concat(prevT ?? (await this.chain()), D, u8(roleCode(role)), u8(local ? 1 : 0));
    const signed = concat(label, this.endpoint.document.sid, body);
    return concat(signed, this.endpoint.D, await this.endpoint.keys.sign(signed));
  }

  async proposal(members: Bytes[], admits: Bytes[], over: { prevT?: Bytes; flags?: number; e?: number } = {}): Promise<Bytes> {
    const list = [...members, this.endpoint.D].sort((a, b) => Buffer.compare(a, b));
    return this.sign(
      'propose', over.e ?? this.e + 1, over.prevT ?? (await this.chain()),
      u8(list.length), ...list, u8(admits.length), ...admits, u32(over.flags ?? 0),
    );
  }

  sign(t: 'propose' | 'alive' | 'challenge', e: number, ...body: Bytes[]): Promise<Bytes> {
    return roomMessage(t, this.endpoint.document.sid, e, this.endpoint.D, this.endpoint.keys.sign, ...body);
  }

  /** Starts a round. Admits of others than the room are given as they arrived. */
  async start(members: Bytes[], admits: Bytes[], flags = 0): Promise<void> {
    const raw = await this.proposal(members, sortAdmits(admits), { flags });
    const propose = parse(raw) as Propose;
    this.e = propose.e;
    const P = await proposalHash(propose.signed);
    this.round = new Round(propose, P, this.now, crypto.getRandomValues(new Uint8Array(32)));
    const commit = await this.#writer.commit(this.e, P, await commitment(P, this.endpoint.D, this.round.nonce));
    this.out.push(raw, commit);
    await this.round.addCommit(parse(commit) as Commit);
  }

  alive(T = this.current!.T, e = this.current!.e): Promise<Bytes> {
    return this.sign('alive', e, T, u64(++this.#n), u64(this.clock + this.now));
  }

  async handle(raw: Bytes): Promise<void> {
    const m = parse(raw);
    if (m.t === 'commit' && this.round && equal(m.P, this.round.P)) {
      await this.round.addCommit(m);
      if (this.round.K && this.round.revealedAt === undefined) await this.#reveal(this.round);
    } else if (m.t === 'reveal' && this.round && equal(m.P, this.round.P)) {
      if (!equal(await documentHash(m.doc), m.from)) throw new Error('reveal of another document');
      await this.round.addReveal(this.endpoint.document, m, documentOf(m)!);
      await this.#finish(this.round);
    } else if ((m.t === 'keys' || m.t === 'ready') && this.current && equal(m.T, this.current.T)) {
      await this.#takeKeys(this.current, m);
    }
  }

  async #takeKeys(t: Transcript, m: Parsed & { t: 'keys' | 'ready' }): Promise<void> {
    const peer = findPeer(t, m.from)!;
    if (!(await verifySignature(peer.document.sigPublic, m.sig, m.signed))) throw new Error('bad signature');
    if (m.t === 'keys') this.#effects(await this.keyring.takeKeys(this.now, t, m));
    else this.keyring.takeReady(t, m);
    this.#effects(await this.keyring.update(this.now, t));
  }

  async #reveal(round: Round): Promise<void> {
    round.revealedAt = this.now;
    const proof = await this.key.prove(this.endpoint.D, round.K!);
    const { doc } = this.endpoint;
    const raw = await this.#writer.reveal(round.e, round.P, round.K!, doc, encodeProof(proof), round.nonce);
    this.out.push(raw);
    await round.addReveal(this.endpoint.document, parse(raw) as Reveal, this.endpoint.document);
    await this.#finish(round);
  }

  async #finish(round: Round): Promise<void> {
    if (!round.complete) return;
    this.current = await round.judge(this.endpoint.document, this.endpoint.D, this.current, this.#config);
    this.round = undefined;
    this.out.push(await this.alive());
    this.#effects(await this.keyring.epoch(this.now, this.current));
  }

  #effects(effects: readonly Effect[]): void {
    for (const e of effects) if (e.t === 'send') this.out.push(e.message);
  }
}

function sortAdmits(admits: Bytes[]): Bytes[] {
  const D = (raw: Bytes) => (parse(raw) as Parsed & { t: 'admit' }).D;
  return [...admits].sort((a, b) => Buffer.compare(D(a), D(b)));
}

/** Somebody on the line: a member and everything that it has asked to be done. */
export class Page {
  readonly member: Member;
  readonly effects: Effect[] = [];

  constructor(member: Member) {
    this.member = member;
  }

  of<K extends Effect['t']>(t: K): Extract<Effect, { t: K }>[] {
    return this.effects.filter((e): e is Extract<Effect, { t: K }> => e.t === t);
  }

  last<K extends Effect['t']>(t: K): Extract<Effect, { t: K }> | undefined {
    return this.of(t).at(-1);
  }
}

/** A relay whose test may drop, change, keep or repeat what passes: `tamper` gives what reaches `to`. */
export class Line {
  now = 1000;
  readonly room: Room;
  readonly pages: Page[] = [];
  tamper: (raw: Bytes, parsed: Parsed, from: Room | Page, to: Room | Page) => Bytes[] | Promise<Bytes[]> = (raw) => [raw];
  /** Everything that was sent, in order. */
  readonly sent: Parsed[] = [];

  constructor(room: Room) {
    this.room = room;
  }

  static async make(): Promise<Line> {
    return new Line(await Room.make());
  }

  async join(role: Exclude<Role, 'device'>, name: string, over: Partial<MemberConfig> = {}): Promise<Page> {
    const page = new Page(new Member(await newEndpoint(session, role, name), configFor(this.room.key.spki, over)));
    this.pages.push(page);
    return page;
  }

  /** Carries out a page's effects: keeps them, and relays what it sends. */
  async carry(page: Page, effects: Promise<Effect[]>): Promise<void> {
    const list = await effects;
    page.effects.push(...list);
    for (const e of list) if (e.t === 'send') await this.relay(e.message, page);
  }

  async relay(raw: Bytes, from: Room | Page): Promise<void> {
    const parsed = parse(raw);
    this.sent.push(parsed);
    for (const to of [this.room, ...this.pages]) {
      if (to === from) continue;
      for (const bytes of await this.tamper(raw, parsed, from, to)) await this.deliver(bytes, to);
    }
  }

  async deliver(raw: Bytes, to: Room | Page): Promise<void> {
    if (to instanceof Page) {
      await this.carry(to, to.member.handle(this.now, raw));
      return;
    }
    to.now = this.now;
    await to.handle(raw);
    await this.flush();
  }

  /** Relays what the room has to say. */
  async flush(): Promise<void> {
    this.room.now = this.now;
    while (this.room.out.length > 0) await this.relay(this.room.out.shift()!, this.room);
  }

  /** Lets time pass in steps, with an alive of the room every 5 s. */
  async pass(ms: number, alive = true, step = 500): Promise<void> {
    const until = this.now + ms;
    while (this.now < until) {
      this.now = Math.min(until, this.now + step);
      this.room.now = this.now;
      if (this.room.current) {
        for (const e of await this.room.keyring.tick(this.now, this.room.current)) {
          if (e.t === 'send') this.room.out.push(e.message);
        }
        for (const e of await this.room.keyring.update(this.now, this.room.current)) {
          if (e.t === 'send') this.room.out.push(e.message);
        }
      }
      if (alive && this.room.current && this.now % 5000 === 0) this.room.out.push(await this.room.alive());
      await this.flush();
      for (const page of this.pages) await this.carry(page, page.member.tick(this.now));
    }
  }

  /** One page of the given role alone with the room, in force. */
  async begin(role: Exclude<Role, 'device'> = 'therapist', name = 'Dr Lee'): Promise<Page> {
    const page = await this.join(role, name);
    await this.room.start([page.member.D], [await this.room.admit(page.member.D, role)]);
    await this.flush();
    return page;
  }
}

export function hexT(page: Page): string | undefined {
  const T = page.member.epoch?.T;
  return T && toHex(T);
}
