// DSSE envelopes (secure-systems-lab/dsse) under owner signatures; same rules as provisioning/document.

import { concat, equal, fromBase64url, MalformedError, sha256, toHex, utf8, type Bytes } from '../agreement/bytes.ts';
import { verifyOwnerSignature } from './composite.ts';
import { Fields, parseJson, type Json } from './json.ts';

/** Bounds the work that an unverified envelope can cause. */
const maxSignatures = 16;

export interface Envelope {
  readonly payloadType: string;
  /** The signed bytes: verifiers read these, never a re-encoding. */
  readonly payload: Bytes;
  readonly signatures: readonly EnvelopeSignature[];
}

export interface EnvelopeSignature {
  /** Hex SHA-256 of the signer's public key. Selects a key, proves nothing. */
  readonly keyid: string;
  readonly sig: Bytes;
}

/** A document that does not hold: not signed as it must be, of another clinic, out of date. */
export class RefusedError extends Error {
  override name = 'RefusedError';
}

/** Reads an envelope out of parsed JSON and verifies nothing. */
export function readEnvelope(value: Json | undefined): Envelope {
  const f = new Fields(value, 'envelope');
  const envelope: Envelope = {
    payloadType: f.string('payloadType'),
    payload: fromBase64url(f.string('payload')),
    signatures: f.list('signatures').map((s) => {
      const g = new Fields(s, 'signature');
      const signature = { keyid: readHash(g.string('keyid')), sig: fromBase64url(g.string('sig')) };
      g.end();
      return signature;
    }),
  };
  f.end();
  if (envelope.payload.length === 0) throw new MalformedError('envelope: no payload');
  return envelope;
}

export function parseEnvelope(bytes: Uint8Array): Envelope {
  return readEnvelope(parseJson(bytes));
}

/** A hash in JSON: 64 lower-case hexadecimal digits. */
export function readHash(text: string): string {
  if (!/^[0-9a-f]{64}$/.test(text)) throw new MalformedError('a hash has 64 lower-case hexadecimal digits');
  return text;
}

/** DSSE's pre-authentication encoding: the bytes that are signed. Binds the payload's type. */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Bytes {
  return concat(utf8(`DSSEv1 ${utf8(payloadType).length} ${payloadType} ${payload.length} `), payload);
}

/** Hex SHA-256 of an envelope's payload. That of the first owner root is the clinic's name. */
export async function payloadHash(envelope: Envelope): Promise<string> {
  return toHex(await sha256(envelope.payload));
}

/** An owner's public key and its id. */
export interface OwnerKey {
  readonly id: string;
  readonly key: Bytes;
}

export async function ownerKey(key: Bytes): Promise<OwnerKey> {
  return { id: toHex(await sha256(key)), key };
}

/**
 * Verifies every signature with the key it names. One that is bad, or made by a key that is not among those known,
 * refuses the envelope: an honest envelope has none, so none is excused. Returns the ids of the signers, each once.
 */
export async function verifyEach(envelope: Envelope, known: readonly OwnerKey[]): Promise<ReadonlySet<string>> {
  const n = envelope.signatures.length;
  if (n === 0 || n > maxSignatures) throw new RefusedError(`${n} signatures, 1 to ${maxSignatures} are possible`);
  const message = preAuthEncoding(envelope.payloadType, envelope.payload);
  const signers = new Set<string>();
  for (const { keyid, sig } of envelope.signatures) {
    if (signers.has(keyid)) throw new RefusedError('one key signed twice');
    const owner = known.find((candidate) => candidate.id === keyid);
    if (!owner) throw new RefusedError('signed by a key that the owner root does not list');
    if (!(await verifyOwnerSignature(owner.key, sig, message))) {
      throw new RefusedError('signature does not match the document');
    }
    signers.add(keyid);
  }
  return signers;
}

/** How many distinct keys of a role have signed. */
export function countSigners(signers: ReadonlySet<string>, role: readonly OwnerKey[]): number {
  const distinct: OwnerKey[] = [];
  for (const k of role) {
    if (signers.has(k.id) && !distinct.some((other) => equal(other.key, k.key))) distinct.push(k);
  }
  return distinct.length;
}
