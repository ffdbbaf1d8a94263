// Lies of the relay, of endpoints that it invents, and of members. Whatever is told, a page either starts nothing or
// shows another code than the honest room. Every test first proves with the same steps, honestly done, that the lie
// and nothing else is what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Reason } from './api.ts';
import { concat, equal, lp, toHex, u32, u64, u8, utf8, type Bytes } from './bytes.ts';
import { documentHash, encodeDocument, endpointOf, newEndpoint, roleCode, type Endpoint, type Role, type Session } from './document.ts';
import { commitment, commitSetHash, firstTranscript, proposalHash, secretHash, sealInfo } from './formulas.ts';
import { Member } from './member.ts';
import { encodeProof, hubProof } from './proof.ts';
import { newEndpointKeys, seal, systemRandom } from './suite.ts';
import { configFor, DeviceKey, hexT, Line, Page, session } from './testing.ts';
import { parse, roomMessage, Writer } from './wire.ts';

const times = 5;

/** An endpoint whose every message the test writes. */
class Puppet {
  readonly endpoint: Endpoint;
  readonly device: DeviceKey | undefined;
  readonly nonce = systemRandom();
  readonly writer: Writer;
  /** What it reveals; changed by the lies. */
  doc: Bytes;
  proof: Bytes | undefined;

  constructor(endpoint: Endpoint, device?: DeviceKey) {
    this.endpoint = endpoint;
    this.device = device;
    this.writer = new Writer(endpoint.document.sid, endpoint.D, endpoint.keys.sign);
    this.doc = endpoint.doc;
  }

  get D(): Bytes {
    return this.endpoint.D;
  }

  static async make(role: Role, device?: DeviceKey, s: Session = session): Promise<Puppet> {
    return new Puppet(await endpointOf(s, role, role, await newEndpointKeys(), systemRandom()), device);
  }

  async admit(prevT: Bytes, D: Bytes, role: Role, local: boolean): Promise<Bytes> {
    const body = concat(prevT, D, u8(roleCode(role)), u8(local ? 1 : 0));
    const signed = concat(lp(utf8('alcove/admit/v1')), session.sid, body);
    return concat(signed, this.D, await this.endpoint.keys.sign(signed));
  }

  propose(e: number, prevT: Bytes, members: Bytes[], admits: Bytes[]): Promise<Bytes> {
    const list = [...members].sort((a, b) => Buffer.compare(a, b));
    const sorted = [...admits].sort((a, b) => Buffer.compare(a.subarray(67, 99), b.subarray(67, 99)));
    const { sign } = this.endpoint.keys;
    const body = [prevT, u8(list.length), ...list, u8(sorted.length), ...sorted, u32(0)];
    return roomMessage('propose', session.sid, e, this.D, sign, ...body);
  }

  alive(e: number, T: Bytes, n: number): Promise<Bytes> {
    return roomMessage('alive', session.sid, e, this.D, this.endpoint.keys.sign, T, u64(n), u64(n * 5000));
  }
}

interface Stage {
  readonly page: Page;
  readonly room: Puppet;
  readonly device: DeviceKey;
  e: number;
  prevT: Bytes;
  now: number;
}

interface Lie {
  /** Members besides page and room. */
  readonly others?: Puppet[];
  readonly admits?: (s: Stage) => Promise<Bytes[]>;
  readonly prevT?: Bytes;
  /** Who signs the proposal, if not the room. */
  readonly proposer?: Puppet;
  /** The hash of commits that the others claim to have seen. */
  readonly K?: Bytes;
  /** The nonce that the room reveals. */
  readonly nonce?: Bytes;
  /** Sent instead of the room's first alive. */
  readonly aliveT?: Bytes;
}

async function stage(role: Exclude<Role, 'device'> = 'therapist'): Promise<Stage> {
  const device = await DeviceKey.make();
  const member = new Member(await newEndpoint(session, role, 'page'), configFor(device.spki));
  return {
    page: new Page(member), room: await Puppet.make('device', device), device,
    e: 0, prevT: await firstTranscript(session), now: 1000,
  };
}

async function tell(s: Stage, raw: Bytes): Promise<void> {
  s.page.effects.push(...(await s.page.member.handle(++s.now, raw)));
}

/** Runs one round with the page, honestly but for the lie; true when the page took it into force. */
async function round(s: Stage, lie: Lie = {}): Promise<boolean> {
  const before = s.page.of('epoch').length;
  const puppets = [s.room, ...(lie.others ?? [])];
  const members = [s.page.member.D, ...puppets.map((p) => p.D)].sort((a, b) => Buffer.compare(a, b));
  const role = s.page.member.endpoint.document.role;
  const admits = lie.admits
    ? await lie.admits(s)
    : s.e === 0 ? [await s.room.admit(s.prevT, s.page.member.D, role, true)] : [];
  const proposer = lie.proposer ?? s.room;
  const raw = await proposer.propose(++s.e, lie.prevT ?? s.prevT, members, admits);
  const P = await proposalHash(parse(raw).signed);
  const sent = s.page.effects.length;
  await tell(s, raw);

  const commits = new Map<string, Bytes>();
  for (const p of puppets) {
    const c = await commitment(P, p.D, p.nonce);
    commits.set(toHex(p.D), c);
    await tell(s, await p.writer.commit(s.e, P, c));
  }
  const own = s.page.effects.slice(sent).flatMap((e) => (e.t === 'send' ? [parse(e.message)] : [])).find((m) => m.t === 'commit');
  if (!own) return false;
  commits.set(toHex(own.from), own.c);
  const K = await commitSetHash(P, members.map((D) => commits.get(toHex(D))!));
  for (const p of puppets) {
    const proof = p.proof ?? encodeProof(p.device ? await p.device.prove(p.D, K) : hubProof);
    const nonce = p === s.room && lie.nonce ? lie.nonce : p.nonce;
    await tell(s, await p.writer.reveal(s.e, P, lie.K ?? K, p.doc, proof, nonce));
  }
  await aliveForAny(s, lie, P, K, members, puppets);
  return s.page.of('epoch').length > before;
}

/** The room's alive for the transcript that an honest page has computed. */
async function aliveForAny(s: Stage, lie: Lie, P: Bytes, K: Bytes, members: Bytes[], puppets: Puppet[]): Promise<void> {
  const reveal = s.page.effects.flatMap((e) => (e.t === 'send' ? [parse(e.message)] : [])).findLast((m) => m.t === 'reveal');
  if (!reveal) return;
  const { transcriptHash } = await import('./formulas.ts');
  const nonces = members.map((D) => (equal(D, reveal.from) ? reveal.nonce : puppets.find((p) => equal(p.D, D))!.nonce));
  const levels = members.map((D) => (equal(D, s.room.D) ? 3 : 1));
  const T = await transcriptHash(lie.prevT ?? s.prevT, P, K, nonces, levels);
  await tell(s, await s.room.alive(s.e, lie.aliveT ?? T, s.e));
  if (s.page.member.epoch && equal(s.page.member.epoch.T, T)) s.prevT = T;
}

/** The page has stopped with this reason, and nothing may be sent. */
function assertFailed(page: Page, reason: Reason): void {
  assert.equal(page.last('failed')?.reason, reason);
  const state = page.last('sending');
  assert.ok(!state || !state.allowed);
}

async function repeated(f: () => Promise<void>): Promise<void> {
  for (let i = 0; i < times; i++) await f();
}

/** First round done with a lie: the page fails with the reason and never had a transcript. */
function firstRound(name: string, reason: Reason, lie: (s: Stage) => Promise<Lie> | Lie): void {
  test(name, () => repeated(async () => {
    const s = await stage();
    const told = await lie(s);
    assert.equal(await round(s, told), false);
    assertFailed(s.page, reason);
    assert.equal(s.page.of('epoch').length, 0);
  }));
}

/** Second round done with a lie. */
function secondRound(name: string, reason: Reason, lie: (s: Stage) => Promise<Lie> | Lie): void {
  test(name, () => repeated(async () => {
    const s = await stage();
    assert.equal(await round(s), true);
    assert.equal(await round(s, await lie(s)), false);
    assertFailed(s.page, reason);
  }));
}

test('the same steps without a lie succeed', () => repeated(async () => {
  const s = await stage();
  assert.equal(await round(s), true);
  assert.equal(await round(s), true);
  const guest = await Puppet.make('guest');
  const admits = async () => [await s.room.admit(s.prevT, guest.D, 'guest', true)];
  assert.equal(await round(s, { others: [guest], admits }), true);
  assert.equal(s.page.member.epoch!.members.length, 3);
}));

firstRound('swap: a room that the clinic does not know', 'proof', async (s) => {
  const other = await Puppet.make('device', await DeviceKey.make());
  Object.assign(s, { room: other });
  return {};
});

firstRound("swap: the room's proof on another document", 'proof', async (s) => {
  s.room.proof = encodeProof(await s.device.prove(systemRandom(), systemRandom()));
  return {};
});

firstRound('swap: the word of the hub for a room', 'role', (s) => {
  s.room.proof = encodeProof(hubProof);
  return {};
});

firstRound('wrong role: a therapist as the room', 'role', async (s) => {
  const therapist = await Puppet.make('therapist');
  Object.assign(s, { room: therapist });
  return {};
});

firstRound("wrong role: admitted as somebody else's role", 'admit', async (s) => {
  const other = await Puppet.make('guest');
  return {
    others: [],
    admits: async () => [await other.admit(s.prevT, s.page.member.D, 'therapist', true)],
  };
});

firstRound('merged sessions: a document of another session', 'document', async (s) => {
  const elsewhere = { ...session, sid: new Uint8Array(16).fill(9) };
  const doc = { ...s.room.endpoint.document, ...elsewhere };
  const endpoint: Endpoint = {
    ...s.room.endpoint, doc: encodeDocument(doc), D: await documentHash(encodeDocument(doc)),
  };
  const room = new Puppet({ ...endpoint, document: s.room.endpoint.document }, s.device);
  room.doc = endpoint.doc;
  Object.assign(s, { room });
  return {};
});

firstRound('split: another set of commitments', 'commit_set', () => ({ K: systemRandom() }));

firstRound('a nonce chosen after the commitments', 'commit', () => ({ nonce: systemRandom() }));

firstRound('a level above its kind', 'proof', (s) => {
  s.room.proof = concat(u8(4), u8(3), lp(new Uint8Array(0)));
  return {};
});

firstRound('an alive for another transcript of the same round', 'transcript', () => ({ aliveT: systemRandom() }));

secondRound('another past', 'transcript', () => ({ prevT: systemRandom() }));

secondRound('ghost: an endpoint without an admit', 'admit', async () => ({ others: [await Puppet.make('guest')] }));

secondRound('ghost: admitted by itself', 'admit', async (s) => {
  const ghost = await Puppet.make('therapist');
  return { others: [ghost], admits: async () => [await ghost.admit(s.prevT, ghost.D, 'therapist', false)] };
});

secondRound('ghost: admitted by a therapist who is new as well', 'admit', async (s) => {
  const [ghost, accomplice] = [await Puppet.make('guest'), await Puppet.make('therapist')];
  return {
    others: [ghost, accomplice],
    admits: async () => [
      await accomplice.admit(s.prevT, ghost.D, 'guest', false),
      await s.room.admit(s.prevT, accomplice.D, 'therapist', true),
    ],
  };
});

secondRound('old transcript: an admit of an earlier one', 'admit', async (s) => {
  const ghost = await Puppet.make('guest');
  const old = await firstTranscript(session);
  return { others: [ghost], admits: async () => [await s.room.admit(old, ghost.D, 'guest', true)] };
});

secondRound('wrong role: an admit for another role', 'role', async (s) => {
  const ghost = await Puppet.make('therapist');
  return { others: [ghost], admits: async () => [await s.room.admit(s.prevT, ghost.D, 'guest', true)] };
});

secondRound('unknown key-share: the keys of another member', 'duplicate', async (s) => {
  const { keys } = s.room.endpoint;
  const copycat = new Puppet(await endpointOf(session, 'guest', 'copy', { ...keys, sigPublic: keys.sigPublic }, systemRandom()));
  return { others: [copycat], admits: async () => [await s.room.admit(s.prevT, copycat.D, 'guest', true)] };
});

test('two commits of one member', () => repeated(async () => {
  const s = await stage();
  assert.equal(await round(s), true);
  const raw = await s.room.propose(++s.e, s.prevT, [s.page.member.D, s.room.D], []);
  const P = await proposalHash(parse(raw).signed);
  await tell(s, raw);
  await tell(s, await s.room.writer.commit(s.e, P, await commitment(P, s.room.D, systemRandom())));
  await tell(s, await s.room.writer.commit(s.e, P, await commitment(P, s.room.D, systemRandom())));
  assertFailed(s.page, 'commit');
}));

test('a proposal of somebody who is not the room has no effect on a member', () => repeated(async () => {
  const s = await stage();
  assert.equal(await round(s), true);
  const impostor = await Puppet.make('device', s.device);
  const effects = s.page.effects.length;
  assert.equal(await round(s, { proposer: impostor }), false);
  const forged = await s.room.propose(s.e + 1, s.prevT, [s.page.member.D, s.room.D], []);
  forged[forged.length - 1]! ^= 1;
  await tell(s, forged);
  assert.equal(s.page.effects.length, effects);
}));

test('a session replayed as a whole has no effect', () => repeated(async () => {
  const line = await Line.make();
  const page = await line.begin();
  const recorded = line.sent.map((m) => m.raw);
  // A page that starts again is another document: nothing of the old session lists it.
  const again = new Page(new Member(await newEndpoint(session, 'therapist', 'Dr Lee'), configFor(line.room.key.spki)));
  for (const raw of recorded) again.effects.push(...(await again.member.handle(5000, raw)));
  assert.equal(again.effects.length, 0);
  assert.ok(hexT(page));
}));

test('grind on join: whatever endpoint is added, codes of split legs differ', async () => {
  // The hub runs two legs with endpoints of its own and tries many joiners in one of them.
  const left = await stage();
  const right = await stage();
  assert.equal(await round(left), true);
  assert.equal(await round(right), true);
  const seen = new Set<string>();
  for (let i = 0; i < 10; i++) {
    for (const s of [left, right]) {
      const joiner = await Puppet.make('guest');
      const admits = async () => [await s.room.admit(s.prevT, joiner.D, 'guest', true)];
      assert.equal(await round(s, { others: [joiner], admits }), true);
      const { code } = s.page.member.epoch!;
      assert.ok(!seen.has(code));
      seen.add(code);
      assert.equal(await round(s), true, 'and leaves again');
    }
  }
});

// --- keys

interface KeyLie {
  readonly T?: Bytes;
  readonly gen?: number;
  readonly idx?: number;
  readonly hash?: Bytes;
  readonly inside?: number;
  readonly to?: Bytes[];
  readonly infoT?: Bytes;
  readonly secret?: Bytes;
}

/** The room's keys message to the page. */
async function keysOf(s: Stage, lie: KeyLie = {}): Promise<Bytes> {
  const T = lie.T ?? s.prevT;
  const gen = lie.gen ?? 1;
  const secret = lie.secret ?? systemRandom();
  const hash = lie.hash ?? (await secretHash(secret));
  const { kemPublic } = s.page.member.endpoint.document;
  const info = await sealInfo(lie.infoT ?? T, s.room.D, s.page.member.D);
  const box = await seal(kemPublic, info, concat(u32(lie.inside ?? gen), secret));
  const boxes = (lie.to ?? [s.page.member.D]).map((to) => concat(to, lp(box)));
  const body = [T, u32(gen), u8(lie.idx ?? gen % 16), hash, ...boxes];
  const signed = concat(lp(utf8('alcove/keys/v1')), session.sid, u32(s.e), s.room.D, ...body);
  return concat(signed, await s.room.endpoint.keys.sign(signed));
}

test('keys: an honest one is taken, the same again is nothing, an older one is nothing', async () => {
  const s = await stage();
  assert.equal(await round(s), true);
  const first = await keysOf(s, { gen: 3 });
  await tell(s, first);
  assert.equal(s.page.of('recvKey').length, 1);
  await tell(s, first);
  await tell(s, await keysOf(s, { gen: 2 }));
  assert.equal(s.page.of('recvKey').length, 1);
  assert.equal(s.page.of('failed').length, 0);
});

const keyLies: readonly (readonly [string, Reason, (s: Stage) => Promise<KeyLie> | KeyLie])[] = [
  ['a wrong index', 'keys', () => ({ idx: 2 })],
  ['generation 0', 'keys', () => ({ gen: 0 })],
  ['a secret that is not the one announced', 'keys', () => ({ hash: systemRandom() })],
  ['another generation inside', 'keys', () => ({ inside: 7 })],
  ['sealed for nobody', 'keys', () => ({ to: [] })],
  ['sealed for somebody else', 'keys', () => ({ to: [systemRandom()] })],
  ['sealed under another transcript', 'keys', () => ({ infoT: systemRandom() })],
  ['another transcript of the same epoch', 'transcript', () => ({ T: systemRandom() })],
];

for (const [name, reason, lie] of keyLies) {
  test(`keys: ${name}`, () => repeated(async () => {
    const s = await stage();
    assert.equal(await round(s), true);
    await tell(s, await keysOf(s, await lie(s)));
    assertFailed(s.page, reason);
    assert.equal(s.page.of('recvKey').length, 0);
  }));
}

test('keys: a secret a second time, also of an earlier transcript', () => repeated(async () => {
  const s = await stage();
  assert.equal(await round(s), true);
  const secret = systemRandom();
  await tell(s, await keysOf(s, { secret }));
  assert.equal(await round(s), true);
  await tell(s, await keysOf(s, { secret, gen: 2 }));
  assertFailed(s.page, 'keys');
}));

test('keys: the same generation in other bytes', () => repeated(async () => {
  const s = await stage();
  assert.equal(await round(s), true);
  await tell(s, await keysOf(s));
  await tell(s, await keysOf(s));
  assertFailed(s.page, 'keys');
}));

test('keys of an old transcript are nothing', () => repeated(async () => {
  const s = await stage();
  assert.equal(await round(s), true);
  const old = await keysOf(s);
  assert.equal(await round(s), true);
  await tell(s, old);
  assert.equal(s.page.of('recvKey').length, 0);
  assert.equal(s.page.of('failed').length, 0);
}));
