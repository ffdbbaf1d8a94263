// What a page configures and what it has to do. The names are those of daemon/e2ee/agreement; secrets never appear:
// keys leave the agreement as CryptoKeys that cannot be exported.

import type { DataContext } from '../data/seal.ts';
import type { Bytes } from './bytes.ts';
import type { EndpointDocument, Role } from './document.ts';
import type { Level, Proof } from './proof.ts';

/** Somebody's proof, to be verified as far as this page can. */
export interface Claim {
  readonly document: EndpointDocument;
  readonly D: Bytes;
  /** Hash of the round's frozen commitments; a device's proof is made over it. */
  readonly K: Bytes;
  readonly proof: Proof;
  /** The level that verify has to reach itself; below it the round fails. 3 for the device, 0 for everybody else. */
  readonly must: Level | 0;
}

/** What this end has to prove. */
export interface ProofRequest {
  readonly D: Bytes;
  readonly K: Bytes;
  /** The room's newest challenge for this document. */
  readonly challenge?: Bytes;
}

export interface MemberConfig {
  /** Makes this end's proof, once per round; hubProof is one. Its failure ends the session at this end. */
  prove(request: ProofRequest): Promise<Proof> | Proof;
  /** Returns the level that this page established itself, 0 for none; throws for a proof that is wrong. */
  verify(claim: Claim): Promise<Level | 0>;
  /** The clinic's minimum per role. Roles left out have device 3, therapist 2, patient 1, guest 1. */
  readonly minLevel?: Partial<Readonly<Record<Role, Level>>>;
}

/** Why something stopped; the numbers travel in end messages. Words for people are elsewhere. */
export const reasons = {
  none: 0,
  ended: 1,
  left: 2,
  removed: 3,
  silent: 4,
  gone: 5,
  declined: 6,
  /** No T in force. */
  no_epoch: 16,
  /** Somebody is being removed. */
  changing: 17,
  /** No other member is ready. */
  nobody: 18,
  /** No fresh alive from the room. */
  no_alive: 19,
  signature: 32,
  proposal: 33,
  transcript: 34,
  admit: 35,
  commit: 36,
  commit_set: 37,
  document: 38,
  duplicate: 39,
  role: 40,
  proof: 41,
  level: 42,
  keys: 43,
  guesses: 44,
  different: 45,
  internal: 46,
} as const;

export type Reason = keyof typeof reasons;

/** The reason of a number in an end message; undefined for numbers that have no meaning. */
export function reasonOf(code: number): Reason | undefined {
  return (Object.keys(reasons) as Reason[]).find((r) => reasons[r] === code);
}

/** Whether a reason means that somebody sent a wrong value. */
export function isFailure(reason: Reason): boolean {
  return reasons[reason] >= reasons.signature;
}

/** One endpoint of the epoch in force, as its document says. */
export interface Participant {
  readonly D: Bytes;
  /** LiveKit identity. */
  readonly eid: string;
  readonly role: Role;
  readonly name: string;
  /** Level in the transcript, verified by the room. */
  readonly level: Level;
  /** Level that this page verified itself. */
  readonly verified: Level | 0;
  readonly self: boolean;
  /** D was compared, on this end or by a therapist who was. */
  readonly compared: boolean;
  /** The therapist whose word it is; absent when compared on this end. */
  readonly comparedBy?: Bytes;
}

/** A key of the agreement. `frames` is HKDF material for livekit-client's onSetEncryptionKey(frames, eid, index). */
export interface AgreedKey {
  readonly gen: number;
  /** Position in LiveKit's key ring: gen mod 16. */
  readonly index: number;
  readonly frames: CryptoKey;
  /** For DataSealer or DataOpener. */
  readonly data: DataContext;
}

export interface Epoch {
  readonly number: number;
  readonly T: Bytes;
  /** In order of D, this end included. */
  readonly members: readonly Participant[];
  /** XXXX-XXXX */
  readonly code: string;
  /** Four indices into pictureNames. */
  readonly pictures: readonly number[];
  /** "NNNN NNNN" */
  readonly digits: string;
  /** A therapist asked for this round, to compare. */
  readonly check: boolean;
}

/** Something that the page has to do, in the order given. */
export type Effect =
  /** Hand this message to the relay. */
  | { readonly t: 'send'; readonly message: Bytes }
  /** Whether anything may be sent to the others now; false until said otherwise. When false, drop from that moment on. */
  | { readonly t: 'sending'; readonly allowed: boolean; readonly reason: Reason }
  /** Seal frames and data with this key from now on, in place of any former one. */
  | { readonly t: 'sendKey'; readonly eid: string; readonly key: AgreedKey }
  /** Destroy the key in use: nothing replaces it yet. */
  | { readonly t: 'dropSendKey' }
  /** A key that this member may send under. */
  | { readonly t: 'recvKey'; readonly D: Bytes; readonly eid: string; readonly key: AgreedKey }
  /** Destroy a receive key: overwrite the ring's slot with random bytes and forget the data opener of that gen. */
  | { readonly t: 'retireRecv'; readonly D: Bytes; readonly eid: string; readonly gen: number; readonly index: number }
  /** A new T is in force. */
  | { readonly t: 'epoch'; readonly epoch: Epoch }
  /** This member has just become able to read what this end sends: send a key frame now. */
  | { readonly t: 'keyFrame'; readonly D: Bytes; readonly eid: string }
  /** D counts as compared now; by the therapist `by`, or on this end. */
  | { readonly t: 'compared'; readonly D: Bytes; readonly by?: Bytes }
  /** On a patient's page: a therapist wants to let this guest in. Answer with agreeGuest. */
  | { readonly t: 'askGuest'; readonly D: Bytes }
  /** For records: failed rounds in the last 10 minutes, this one included. */
  | { readonly t: 'roundFailed'; readonly number: number; readonly count: number }
  /** Out of the session, in order. Forget all keys; the member does nothing more. */
  | { readonly t: 'ended'; readonly reason: Reason }
  /** As ended, but something was wrong. `from` is who sent it, when that can be told. */
  | { readonly t: 'failed'; readonly reason: Reason; readonly from?: Bytes };

/** A wrong value: the session is over at this end. */
export class Fault extends Error {
  override name = 'Fault';
  readonly reason: Reason;
  readonly from: Bytes | undefined;

  constructor(reason: Reason, from?: Bytes) {
    super(`the key agreement failed: ${reason}`);
    this.reason = reason;
    this.from = from;
  }
}
