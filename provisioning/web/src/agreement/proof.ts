// Proofs of who an endpoint is: u8 kind ‖ u8 level ‖ lp(body), over the document hash D and not inside the document.
//
//   kind 1 device   level 3  body = lp(SPKI) ‖ lp(signature): ECDSA P-256 over lp("alcove/proof-device/v1") ‖ lp(D) ‖ lp(K)
//   kind 2 passkey  level 3  body belongs to the room, which verifies it
//   kind 3 OIDC     level 2  body belongs to the room, which verifies it
//   kind 4 hub      level 1  body empty: the server's word and nothing more
//
// K is the hash of the round's frozen commitments, so a device's proof is fresh in every round.

import { concat, lp, MalformedError, Reader, u8, utf8, type Bytes } from './bytes.ts';
import type { Role } from './document.ts';

export type ProofKind = 'device' | 'passkey' | 'oidc' | 'hub';
export type Level = 1 | 2 | 3;

export interface Proof {
  readonly kind: ProofKind;
  readonly level: Level;
  readonly body: Bytes;
}

const maxBody = 16384;
/** Largest possible proof. */
export const maxProof = 2 + 4 + maxBody;

const kinds: Readonly<Record<ProofKind, { readonly code: number; readonly level: Level }>> = {
  device: { code: 1, level: 3 },
  passkey: { code: 2, level: 3 },
  oidc: { code: 3, level: 2 },
  hub: { code: 4, level: 1 },
};

/** The server's word: all that a page without a passkey can show. */
export const hubProof: Proof = { kind: 'hub', level: 1, body: new Uint8Array(0) };

export function encodeProof(p: Proof): Bytes {
  return concat(u8(kinds[p.kind].code), u8(p.level), lp(p.body));
}

export function parseProof(bytes: Uint8Array): Proof {
  const r = new Reader(bytes);
  const code = r.u8();
  const level = r.u8();
  const body = r.lp(maxBody);
  r.end();
  for (const kind of Object.keys(kinds) as ProofKind[]) {
    if (kinds[kind].code !== code) continue;
    // A kind has one level: a claim of more, or of less, is no proof of that kind.
    if (kinds[kind].level !== level) throw new MalformedError(`proof of kind ${kind} with level ${level}`);
    if (kind === 'hub' && body.length !== 0) throw new MalformedError("the hub's word has no body");
    return { kind, level: kinds[kind].level, body };
  }
  throw new MalformedError(`proof of unknown kind ${code}`);
}

/** A document of role device carries kind device, every other role one of the other kinds. */
export function kindFits(role: Role, kind: ProofKind): boolean {
  return (role === 'device') === (kind === 'device');
}

/** What the room device's proof says; nothing of it is verified yet. */
export interface DeviceProof {
  /** P-256 public key, DER SubjectPublicKeyInfo. */
  readonly spki: Bytes;
  /** ECDSA signature with SHA-256, DER. */
  readonly signature: Bytes;
  /** The bytes that were signed. */
  readonly message: Bytes;
}

/** Size of a P-256 SubjectPublicKeyInfo with the uncompressed point, the one form allowed. */
const spkiSize = 91;

export function readDeviceProof(proof: Proof, D: Bytes, K: Bytes): DeviceProof {
  if (proof.kind !== 'device') throw new MalformedError('not a device proof');
  const r = new Reader(proof.body);
  const spki = r.lp(spkiSize);
  const signature = r.lp(72);
  r.end();
  if (spki.length !== spkiSize) throw new MalformedError('device key has another form');
  return { spki, signature, message: concat(lp(utf8('alcove/proof-device/v1')), lp(D), lp(K)) };
}
