// One round of the agreement as a member sees it: proposal, frozen commitments, reveals, and the judgement over all
// of them that gives the transcript hash T. Pure data and checks; member.ts moves it.

import { Fault, type Claim, type MemberConfig } from './api.ts';
import { concat, equal, toHex, type Bytes } from './bytes.ts';
import { parseDocument, type EndpointDocument, type Role, type Session } from './document.ts';
import { commitment, commitSetHash, firstTranscript, transcriptHash } from './formulas.ts';
import { kindFits, parseProof, type Level, type Proof } from './proof.ts';
import { verifySignature } from './suite.ts';
import { indexOf, type Admission, type Commit, type Propose, type Reveal } from './wire.ts';

/** An endpoint of a completed round. */
export interface Peer {
  readonly D: Bytes;
  readonly document: EndpointDocument;
  readonly level: Level;
  readonly verified: Level | 0;
}

/** A completed round: its T may come into force. */
export interface Transcript {
  readonly e: number;
  readonly T: Bytes;
  readonly prevT: Bytes;
  readonly check: boolean;
  /** In ascending order of D. */
  readonly peers: readonly Peer[];
  /** S, the room. */
  readonly room: Peer;
  /** When this end sent its reveal: no alive of this T can be older. */
  readonly revealedAt: number;
}

export function findPeer(t: Transcript | undefined, D: Bytes): Peer | undefined {
  return t?.peers.find((p) => equal(p.D, D));
}

interface Revealed {
  readonly message: Reveal;
  readonly document: EndpointDocument;
  readonly proof: Proof;
}

export class Round {
  readonly propose: Propose;
  readonly P: Bytes;
  readonly takenAt: number;
  readonly nonce: Bytes;
  /** This end's commit, then its reveal: sent again after a reconnection. */
  readonly own: Bytes[] = [];
  /** When this end sent its reveal. */
  revealedAt: number | undefined;
  /** Set once every check has passed. */
  transcript: Transcript | undefined;

  readonly #commits = new Map<string, Commit>();
  readonly #reveals = new Map<string, Revealed>();
  #K: Bytes | undefined;

  constructor(propose: Propose, P: Bytes, takenAt: number, nonce: Bytes) {
    this.propose = propose;
    this.P = P;
    this.takenAt = takenAt;
    this.nonce = nonce;
  }

  get e(): number {
    return this.propose.e;
  }

  /** Hash of the frozen commitments; undefined until all are there. */
  get K(): Bytes | undefined {
    return this.#K;
  }

  lists(D: Bytes): boolean {
    return indexOf(this.propose.members, D) >= 0;
  }

  /** The signing key that a member has shown in this round. */
  signerOf(D: Bytes): Bytes | undefined {
    return this.#reveals.get(toHex(D))?.document.sigPublic;
  }

  /** An unfinished round counts as a guess once its outcome could be known. */
  get isGuess(): boolean {
    return this.#K !== undefined || this.revealedAt !== undefined;
  }

  /** Takes a commitment. The signature is checked by the caller if the document is known, and in judge for all. */
  async addCommit(message: Commit): Promise<void> {
    const id = toHex(message.from);
    const before = this.#commits.get(id);
    if (before) {
      if (!equal(before.c, message.c)) throw new Fault('commit', message.from);
      return;
    }
    this.#commits.set(id, message);
    if (this.#commits.size < this.propose.members.length) return;
    const list = this.propose.members.map((D) => this.#commits.get(toHex(D))!.c);
    this.#K = await commitSetHash(this.P, list);
  }

  /** Takes a reveal whose own signature was checked. K must be known. */
  async addReveal(message: Reveal, document: EndpointDocument): Promise<void> {
    const id = toHex(message.from);
    if (this.#reveals.has(id)) return;
    if (!equal(message.K, this.#K!)) throw new Fault('commit_set', message.from);
    const c = await commitment(this.P, message.from, message.nonce);
    if (!equal(c, this.#commits.get(id)!.c)) throw new Fault('commit', message.from);
    let proof: Proof;
    try {
      proof = parseProof(message.proof);
    } catch {
      throw new Fault('proof', message.from);
    }
    this.#reveals.set(id, { message, document, proof });
  }

  get complete(): boolean {
    return this.#reveals.size === this.propose.members.length;
  }

  /**
   * Checks everything of a complete round and computes T. `before` is the transcript in force at this end, undefined
   * for a newcomer. Throws Fault.
   */
  async judge(session: Session, self: Bytes, before: Transcript | undefined, config: MemberConfig): Promise<Transcript> {
    const { propose } = this;
    const all = propose.members.map((D) => this.#reveals.get(toHex(D))!);
    const room = this.#reveals.get(toHex(propose.from))!;
    for (const r of all) await this.#checkEndpoint(session, r);
    if (!(await verifySignature(room.document.sigPublic, propose.sig, propose.signed))) {
      throw new Fault('signature', propose.from);
    }
    requireDistinct(all);
    if (equal(propose.prevT, await firstTranscript(session)) && all.length !== 2) {
      throw new Fault('proposal', propose.from);
    }
    await this.#checkAdmits(self, before);
    const peers: Peer[] = [];
    for (const r of all) peers.push(await this.#checkProof(r, config));

    const nonces = all.map((r) => r.message.nonce);
    const levels = peers.map((p) => p.level);
    return {
      e: propose.e,
      T: await transcriptHash(propose.prevT, this.P, this.#K!, nonces, levels),
      prevT: propose.prevT,
      check: propose.check,
      peers,
      room: findIn(peers, propose.from),
      revealedAt: this.revealedAt!,
    };
  }

  async #checkEndpoint(session: Session, r: Revealed): Promise<void> {
    const { from } = r.message;
    const d = r.document;
    if (!equal(d.clinic, session.clinic) || !equal(d.sid, session.sid)) throw new Fault('document', from);
    if ((d.role === 'device') !== equal(from, this.propose.from)) throw new Fault('role', from);
    if (!kindFits(d.role, r.proof.kind)) throw new Fault('role', from);
    const commit = this.#commits.get(toHex(from))!;
    if (!(await verifySignature(d.sigPublic, commit.sig, commit.signed))) throw new Fault('signature', from);
  }

  async #checkAdmits(self: Bytes, before: Transcript | undefined): Promise<void> {
    const { propose } = this;
    for (const admit of propose.admits) await this.#checkAdmit(admit, before);
    for (const D of propose.members) {
      if (equal(D, propose.from)) continue;
      // A newcomer cannot tell who of the others is new; it can tell that it is itself.
      const known = before ? findPeer(before, D) !== undefined : !equal(D, self);
      if (!known && !propose.admits.some((a) => equal(a.D, D))) throw new Fault('admit', D);
    }
  }

  async #checkAdmit(a: Admission, before: Transcript | undefined): Promise<void> {
    const { propose } = this;
    const admitted = this.#reveals.get(toHex(a.D));
    const signer = this.#reveals.get(toHex(a.signer));
    const fault = new Fault('admit', propose.from);
    if (!admitted || !signer || !equal(a.prevT, propose.prevT) || !equal(a.sid, propose.sid)) throw fault;
    if (!(await verifySignature(signer.document.sigPublic, a.sig, a.signed))) throw new Fault('signature', a.signer);
    if (admitted.document.role !== a.role) throw new Fault('role', a.D);
    if (a.role === 'device') throw fault;
    if (equal(a.signer, propose.from)) {
      // A touch in the room, or the therapist whose sign-in is the permission.
      if (!a.local && !(a.role === 'therapist' && propose.members.length === 2)) throw fault;
      return;
    }
    const signerIsNew = before
      ? findPeer(before, a.signer) === undefined
      : propose.admits.some((other) => equal(other.D, a.signer));
    if (a.local || signer.document.role !== 'therapist' || signerIsNew) throw fault;
  }

  async #checkProof(r: Revealed, config: MemberConfig): Promise<Peer> {
    const { document, proof, message } = r;
    const D = message.from;
    if (proof.level < minLevel(config, document.role)) throw new Fault('level', D);
    const must = document.role === 'device' ? 3 : 0;
    const claim: Claim = { document, D, K: this.#K!, proof, must };
    let verified: Level | 0;
    try {
      verified = await config.verify(claim);
    } catch {
      throw new Fault('proof', D);
    }
    if (verified < must) throw new Fault('proof', D);
    return { D, document, level: proof.level, verified };
  }
}

function findIn(peers: readonly Peer[], D: Bytes): Peer {
  return peers.find((p) => equal(p.D, D))!;
}

const defaultMinLevel: Readonly<Record<Role, Level>> = { device: 3, therapist: 2, patient: 1, guest: 1 };

function minLevel(config: MemberConfig, role: Role): Level {
  return config.minLevel?.[role] ?? defaultMinLevel[role];
}

/** D's are distinct by the proposal's order; keys must be too, or one endpoint could stand for two. */
function requireDistinct(all: readonly Revealed[]): void {
  const seen = new Set<string>();
  for (const { document, message } of all) {
    for (const key of [concat(Uint8Array.of(1), document.sigPublic), concat(Uint8Array.of(2), document.kemPublic)]) {
      const id = toHex(key);
      if (seen.has(id)) throw new Fault('duplicate', message.from);
      seen.add(id);
    }
  }
}

/** The document of a reveal, if its bytes are a document; wrong bytes of a known sender are a Fault of the caller's. */
export function documentOf(message: Reveal): EndpointDocument | undefined {
  try {
    return parseDocument(message.doc);
  } catch {
    return undefined;
  }
}
