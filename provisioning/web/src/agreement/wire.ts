// Messages and statements of the key agreement, byte for byte as daemon/e2ee/agreement states them.
//
// A message is lp(label) ‖ sid[16] ‖ u32 e ‖ from D[32] ‖ body ‖ sig[64], signed over everything before sig. A
// statement carries no epoch and no sender; it names its signer behind the signed bytes: … ‖ signer D[32] ‖ sig[64].
// Parsing gives what the bytes say and the bytes that were signed; nothing is verified here.

import { compare, concat, copy, equal, fromUtf8, lp, MalformedError, Reader, u32, u8, utf8, type Bytes } from './bytes.ts';
import { maxDocument, roleCode, roleOf, type Role } from './document.ts';
import { maxProof } from './proof.ts';
import { sealedSize, signatureSize } from './suite.ts';

export const maxMessage = 65536;
/** Members of a session, the room included. */
export const maxMembers = 5;
const secretSize = 32;

interface Framed {
  readonly sid: Bytes;
  readonly e: number;
  readonly from: Bytes;
  /** The message without its signature. */
  readonly signed: Bytes;
  readonly sig: Bytes;
  /** The whole message. */
  readonly raw: Bytes;
}

export interface Propose extends Framed {
  readonly t: 'propose';
  readonly prevT: Bytes;
  readonly members: readonly Bytes[];
  readonly admits: readonly Admission[];
  readonly check: boolean;
}
export interface Commit extends Framed {
  readonly t: 'commit';
  readonly P: Bytes;
  readonly c: Bytes;
}
export interface Reveal extends Framed {
  readonly t: 'reveal';
  readonly P: Bytes;
  readonly K: Bytes;
  readonly doc: Bytes;
  readonly proof: Bytes;
  readonly nonce: Bytes;
}
export interface Keys extends Framed {
  readonly t: 'keys';
  readonly T: Bytes;
  readonly gen: number;
  readonly idx: number;
  readonly secretHash: Bytes;
  readonly sealed: readonly { readonly to: Bytes; readonly bytes: Bytes }[];
}
export interface Ready extends Framed {
  readonly t: 'ready';
  readonly T: Bytes;
  readonly gens: readonly number[];
}
export interface Alive extends Framed {
  readonly t: 'alive';
  readonly T: Bytes;
  readonly n: number;
  readonly time: number;
}
export interface Challenge extends Framed {
  readonly t: 'challenge';
  readonly D: Bytes;
  readonly dch: Bytes;
  readonly expiry: number;
}
export interface End extends Framed {
  readonly t: 'end';
  readonly reason: number;
}
export type Message = Propose | Commit | Reveal | Keys | Ready | Alive | Challenge | End;

interface Signed {
  readonly sid: Bytes;
  readonly signer: Bytes;
  readonly signed: Bytes;
  readonly sig: Bytes;
  readonly raw: Bytes;
}
/** admit and remove have one form. */
export interface Admission extends Signed {
  readonly t: 'admit' | 'remove';
  readonly prevT: Bytes;
  readonly D: Bytes;
  readonly role: Role;
  readonly local: boolean;
}
export interface Check extends Signed {
  readonly t: 'check';
  readonly T: Bytes;
}
export interface Compared extends Signed {
  readonly t: 'compared';
  readonly T: Bytes;
  readonly D: Bytes;
}
export interface Agree extends Signed {
  readonly t: 'agree';
  readonly admit: Bytes;
  readonly yes: boolean;
}
export type Statement = Admission | Check | Compared | Agree;

export type Parsed = Message | Statement;

export function labelOf(t: Parsed['t']): string {
  return `alcove/${t}/v1`;
}

/** Reads one message or statement. Throws MalformedError for anything that is not exactly one. */
export function parse(bytes: Uint8Array): Parsed {
  if (bytes.length > maxMessage) throw new MalformedError('message is too large');
  const raw = copy(bytes);
  const label = fromUtf8(new Reader(raw).lp(64));
  const t = /^alcove\/([a-z]+)\/v1$/.exec(label)?.[1];
  switch (t) {
    case 'propose':
    case 'commit':
    case 'reveal':
    case 'keys':
    case 'ready':
    case 'alive':
    case 'challenge':
    case 'end':
      return parseMessage(t, raw);
    case 'admit':
    case 'remove':
    case 'check':
    case 'compared':
    case 'agree':
      return parseStatement(t, raw);
    default:
      throw new MalformedError('unknown label');
  }
}

/** As parse; undefined for what is no message. */
export function tryParse(bytes: Uint8Array): Parsed | undefined {
  try {
    return parse(bytes);
  } catch (err) {
    if (err instanceof MalformedError) return undefined;
    throw err;
  }
}

function parseMessage(t: Message['t'], raw: Bytes): Message {
  const at = raw.length - signatureSize;
  if (at < 0) throw new MalformedError('message is too short');
  const signed = raw.slice(0, at);
  const r = new Reader(signed);
  r.label(labelOf(t));
  const frame: Framed = { sid: r.take(16), e: r.u32(), from: r.take(32), signed, sig: raw.slice(at), raw };
  const message = { ...frame, ...readBody(t, r) } as Message;
  r.end();
  return message;
}

function readBody(t: Message['t'], r: Reader): object {
  switch (t) {
    case 'propose':
      return { t, ...readPropose(r) };
    case 'commit':
      return { t, P: r.take(32), c: r.take(32) };
    case 'reveal':
      return { t, P: r.take(32), K: r.take(32), doc: r.lp(maxDocument), proof: r.lp(maxProof), nonce: r.take(32) };
    case 'keys':
      return { t, T: r.take(32), gen: r.u32(), idx: r.u8(), secretHash: r.take(32), sealed: readSealed(r) };
    case 'ready':
      return { t, T: r.take(32), gens: readGens(r) };
    case 'alive':
      return { t, T: r.take(32), n: r.u64(), time: r.u64() };
    case 'challenge':
      return { t, D: r.take(32), dch: r.take(32), expiry: r.u64() };
    case 'end':
      return { t, reason: r.u8() };
  }
}

function readPropose(r: Reader) {
  const prevT = r.take(32);
  const members = times(readCount(r, 2, maxMembers), () => r.take(32));
  const admits = times(readCount(r, 0, maxMembers), () => readEmbeddedAdmit(r));
  requireAscending(members);
  requireAscending(admits.map((a) => a.D));
  const flags = r.u32();
  if (flags > 1) throw new MalformedError('unknown flags');
  return { prevT, members, admits, check: flags === 1 };
}

function readEmbeddedAdmit(r: Reader): Admission {
  const admit = parseStatement('admit', r.take(admissionSize('admit')));
  if (admit.t !== 'admit') throw new MalformedError('not an admit');
  return admit;
}

function readSealed(r: Reader) {
  const size = 32 + 4 + sealedSize(4 + secretSize);
  if (r.remaining % size !== 0 || r.remaining / size > maxMembers - 1) throw new MalformedError('malformed keys');
  const sealed = times(r.remaining / size, () => ({ to: r.take(32), bytes: r.lp(sealedSize(4 + secretSize)) }));
  requireAscending(sealed.map((s) => s.to));
  return sealed;
}

function readGens(r: Reader): number[] {
  if (r.remaining % 4 !== 0 || r.remaining / 4 > maxMembers) throw new MalformedError('malformed ready');
  return times(r.remaining / 4, () => r.u32());
}

function readCount(r: Reader, least: number, most: number): number {
  const n = r.u8();
  if (n < least || n > most) throw new MalformedError(`${n} entries`);
  return n;
}

function times<T>(n: number, make: () => T): T[] {
  return Array.from({ length: n }, make);
}

function requireAscending(list: readonly Bytes[]): void {
  for (let i = 1; i < list.length; i++) {
    if (compare(list[i - 1]!, list[i]!) >= 0) throw new MalformedError('list is not strictly ascending');
  }
}

function admissionSize(t: 'admit' | 'remove'): number {
  return 4 + labelOf(t).length + 16 + 32 + 32 + 1 + 1 + 32 + signatureSize;
}

function parseStatement(t: Statement['t'], raw: Bytes): Statement {
  const at = raw.length - 32 - signatureSize;
  if (at < 0) throw new MalformedError('statement is too short');
  const signed = raw.slice(0, at);
  const r = new Reader(signed);
  r.label(labelOf(t));
  const frame: Signed = { sid: r.take(16), signer: raw.slice(at, at + 32), signed, sig: raw.slice(at + 32), raw };
  const statement = { ...frame, ...readStatement(t, r) } as Statement;
  r.end();
  return statement;
}

function readStatement(t: Statement['t'], r: Reader): object {
  switch (t) {
    case 'admit':
    case 'remove':
      return { t, prevT: r.take(32), D: r.take(32), role: roleOf(r.u8()), local: readFlag(r) };
    case 'check':
      return { t, T: r.take(32) };
    case 'compared':
      return { t, T: r.take(32), D: r.take(32) };
    case 'agree':
      return { t, admit: r.take(32), yes: readFlag(r) };
  }
}

function readFlag(r: Reader): boolean {
  const v = r.u8();
  if (v > 1) throw new MalformedError('neither yes nor no');
  return v === 1;
}

/** Signs with this end's key. */
export type Sign = (message: Bytes) => Promise<Bytes>;

async function frame(t: Message['t'], sid: Bytes, e: number, from: Bytes, sign: Sign, ...body: Bytes[]): Promise<Bytes> {
  const signed = concat(lp(utf8(labelOf(t))), sid, u32(e), from, ...body);
  const message = concat(signed, await sign(signed));
  if (message.length > maxMessage) throw new RangeError('message is too large');
  return message;
}

/** Writes this end's messages of one session. */
export class Writer {
  readonly #sid: Bytes;
  readonly #from: Bytes;
  readonly #sign: Sign;

  constructor(sid: Bytes, from: Bytes, sign: Sign) {
    this.#sid = sid;
    this.#from = from;
    this.#sign = sign;
  }

  #message(t: Message['t'], e: number, ...body: Bytes[]): Promise<Bytes> {
    return frame(t, this.#sid, e, this.#from, this.#sign, ...body);
  }

  async #statement(t: Statement['t'], ...body: Bytes[]): Promise<Bytes> {
    const signed = concat(lp(utf8(labelOf(t))), this.#sid, ...body);
    return concat(signed, this.#from, await this.#sign(signed));
  }

  commit(e: number, P: Bytes, c: Bytes): Promise<Bytes> {
    return this.#message('commit', e, P, c);
  }

  reveal(e: number, P: Bytes, K: Bytes, doc: Bytes, proof: Bytes, nonce: Bytes): Promise<Bytes> {
    return this.#message('reveal', e, P, K, lp(doc), lp(proof), nonce);
  }

  keys(
    e: number,
    T: Bytes,
    gen: number,
    hash: Bytes,
    sealed: readonly { readonly to: Bytes; readonly bytes: Bytes }[],
  ): Promise<Bytes> {
    const list = sealed.map((s) => concat(s.to, lp(s.bytes)));
    return this.#message('keys', e, T, u32(gen), u8(gen % 16), hash, ...list);
  }

  ready(e: number, T: Bytes, gens: readonly number[]): Promise<Bytes> {
    return this.#message('ready', e, T, ...gens.map(u32));
  }

  end(e: number, reason: number): Promise<Bytes> {
    return this.#message('end', e, u8(reason));
  }

  /** A page never signs for a touch in the room: local is 0. */
  admission(t: 'admit' | 'remove', prevT: Bytes, D: Bytes, role: Role): Promise<Bytes> {
    return this.#statement(t, prevT, D, u8(roleCode(role)), u8(0));
  }

  check(T: Bytes): Promise<Bytes> {
    return this.#statement('check', T);
  }

  compared(T: Bytes, D: Bytes): Promise<Bytes> {
    return this.#statement('compared', T, D);
  }

  agree(admit: Bytes, yes: boolean): Promise<Bytes> {
    return this.#statement('agree', admit, u8(yes ? 1 : 0));
  }
}

/** The position of D in a list, −1 when it is not there. */
export function indexOf(list: readonly Bytes[], D: Bytes): number {
  return list.findIndex((x) => equal(x, D));
}

/** Writes the messages that only the room makes. Pages have no use for them; their tests play the room. */
export function roomMessage(
  t: 'propose' | 'alive' | 'challenge',
  sid: Bytes,
  e: number,
  from: Bytes,
  sign: Sign,
  ...body: Bytes[]
): Promise<Bytes> {
  return frame(t, sid, e, from, sign, ...body);
}

