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
  /** When the proposal was taken; moved on by the time without a connection. */
  takenAt: number;
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

  /** Takes a reveal whose own signature was checked. K must be known. Throws Fault. */
  async addReveal(session: Session, message: Reveal, document: EndpointDocument): Promise<void> {
    const { from } = message;
    const id = toHex(from);
    const before = this.#reveals.get(id);
    if (before) {
      if (!equal(before.message.raw, message.raw)) throw new Fault('commit', from);
      return;
    }
    const commit = this.#commits.get(id)!;
    if (!(await verifySignature(document.sigPublic, commit.sig, commit.signed))) throw new Fault('signature', from);
    if (!equal(message.K, this.#K!)) throw new Fault('commit_set', from);
    if (!equal(document.clinic, session.clinic) || !equal(document.sid, session.sid)) throw new Fault('document', from);
    if (!equal(await commitment(this.P, from, message.nonce), commit.c)) throw new Fault('commit', from);
    this.#reveals.set(id, { message, document, proof: proofOf(message) });
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
    const documents = (D: Bytes) => this.#reveals.get(toHex(D))?.document;
    const room = documents(propose.from)!;
    if (!(await verifySignature(room.sigPublic, propose.sig, propose.signed))) {
      throw new Fault('signature', propose.from);
    }
    const peers: Peer[] = [];
    for (const r of all) peers.push(await this.#checkMember(r, self, before, config));
    requireDistinct(all);
    if (!(await admitsHold(propose, session, before, documents))) throw new Fault('admit', propose.from);

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

  async #checkMember(r: Revealed, self: Bytes, before: Transcript | undefined, config: MemberConfig): Promise<Peer> {
    const { document, proof, message } = r;
    const D = message.from;
    const isRoom = equal(D, this.propose.from);
    const admit = this.propose.admits.find((a) => equal(a.D, D));
    if ((document.role === 'device') !== isRoom || !kindFits(document.role, proof.kind)) throw new Fault('role', D);
    if (admit && admit.role !== document.role) throw new Fault('role', D);
    const { level } = proof;
    if (level < minLevel(config, document.role)) throw new Fault('level', D);
    if (equal(D, self)) return { D, document, level, verified: level };
    const known = findPeer(before, D);
    if (known && !isRoom) {
      // A person's proof was verified when the member came; the room's is fresh in every round.
      if (known.level !== level) throw new Fault('level', D);
      return { D, document, level, verified: known.verified };
    }
    const claim: Claim = { document, D, K: this.#K!, proof, must: isRoom ? 3 : 0 };
    let verified: Level | 0;
    try {
      verified = await config.verify(claim);
    } catch {
      throw new Fault('proof', D);
    }
    if (verified < claim.must) throw new Fault('proof', D);
    return { D, document, level, verified: verified < level ? verified : level };
  }
}

function proofOf(message: Reveal): Proof {
  try {
    return parseProof(message.proof);
  } catch {
    throw new Fault('proof', message.from);
  }
}

/**
 * Whether everybody who is new has an admit, and every admit counts. `before` is the transcript in force at this end,
 * undefined for a newcomer, who cannot tell who of the others is new. `documents` gives what is known of a D; an admit
 * of an unknown signer does not count.
 */
export async function admitsHold(
  propose: Propose,
  session: Session,
  before: Transcript | undefined,
  documents: (D: Bytes) => EndpointDocument | undefined,
): Promise<boolean> {
  if (equal(propose.prevT, await firstTranscript(session)) && propose.members.length !== 2) return false;
  const admitted = (D: Bytes) => propose.admits.some((a) => equal(a.D, D));
  for (const D of propose.members) {
    if (before && !equal(D, propose.from) && !findPeer(before, D) && !admitted(D)) return false;
  }
  for (const a of propose.admits) {
    const signer = documents(a.signer);
    if (!signer || a.role === 'device' || !admitFits(a, propose)) return false;
    if (!(await verifySignature(signer.sigPublic, a.sig, a.signed))) return false;
    if (equal(a.signer, propose.from)) {
      // A touch in the room, or the therapist whose sign-in is the permission.
      if (!a.local && !(a.role === 'therapist' && propose.members.length === 2)) return false;
      continue;
    }
    const old = !before || findPeer(before, a.signer) !== undefined;
    if (a.local || signer.role !== 'therapist' || !old || admitted(a.signer)) return false;
  }
  return true;
}

function admitFits(a: Admission, propose: Propose): boolean {
  return (
    equal(a.sid, propose.sid) &&
    equal(a.prevT, propose.prevT) &&
    indexOf(propose.members, a.D) >= 0 &&
    indexOf(propose.members, a.signer) >= 0 &&
    !equal(a.D, propose.from)
  );
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
