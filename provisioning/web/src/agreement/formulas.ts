// The hashes of a round and what people compare. Every formula stands in daemon/e2ee/agreement and in the shared
// vectors; n-tuples are in ascending order of D.

import { H, u8, type Bytes } from './bytes.ts';
import type { Session } from './document.ts';

/** prevT of a session's first round. */
export function firstTranscript(s: Session): Promise<Bytes> {
  return H('alcove/transcript0/v1', s.clinic, s.sid);
}

/** P: hash of a proposal, its signature left out. */
export function proposalHash(unsigned: Bytes): Promise<Bytes> {
  return H('alcove/propose/v1', unsigned);
}

export function commitment(P: Bytes, D: Bytes, nonce: Bytes): Promise<Bytes> {
  return H('alcove/commit/v1', P, D, nonce);
}

/** K: hash of the frozen set of all commitments. */
export function commitSetHash(P: Bytes, commitments: readonly Bytes[]): Promise<Bytes> {
  return H('alcove/commitset/v1', P, ...commitments);
}

export function transcriptHash(
  prevT: Bytes,
  P: Bytes,
  K: Bytes,
  nonces: readonly Bytes[],
  levels: readonly number[],
): Promise<Bytes> {
  return H('alcove/transcript/v1', prevT, P, K, ...nonces, ...levels.map(u8));
}

export function secretHash(secret: Bytes): Promise<Bytes> {
  return H('alcove/secret/v1', secret);
}

/** HPKE info that binds a sealed secret to transcript, sender and recipient. */
export function sealInfo(T: Bytes, from: Bytes, to: Bytes): Promise<Bytes> {
  return H('alcove/seal/v1', T, from, to);
}

/** The name of an admission, in the patient's answer to it. */
export function admissionHash(signed: Bytes): Promise<Bytes> {
  return H('alcove/admit/v1', signed);
}

/** Challenge of a passkey assertion that is to prove document D with the room's challenge dch. */
export function passkeyChallenge(D: Bytes, dch: Bytes): Promise<Bytes> {
  return H('alcove/proof-passkey/v1', D, dch);
}

/** What people compare: all from T, each under a label of its own. */
export interface Comparison {
  /** 40 bits as XXXX-XXXX: for experts, in Details. */
  readonly code: string;
  /** Indices into pictureNames, all different, in the order to be read. */
  readonly pictures: readonly number[];
  /** The pictures' number as "NNNN NNNN". */
  readonly digits: string;
}

const crockford = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

export async function comparisonOf(T: Bytes): Promise<Comparison> {
  const codeBytes = await H('alcove/code/v1', T);
  let bits = 0n;
  for (const b of codeBytes.subarray(0, 5)) bits = (bits << 8n) | BigInt(b);
  let letters = '';
  for (let shift = 35n; shift >= 0n; shift -= 5n) letters += crockford[Number((bits >> shift) & 31n)]!;

  const choices = 64 * 63 * 62 * 61;
  const pictureBytes = await H('alcove/pictures/v1', T);
  const x = Number(new DataView(pictureBytes.buffer).getBigUint64(0) % BigInt(choices));
  const left = Array.from({ length: pictureNames.length }, (_, i) => i);
  const pictures: number[] = [];
  for (let rest = x; pictures.length < 4; ) {
    const n = left.length;
    pictures.push(...left.splice(rest % n, 1));
    rest = Math.floor(rest / n);
  }
  const digits = String(x).padStart(8, '0');
  return {
    code: `${letters.slice(0, 4)}-${letters.slice(4)}`,
    pictures,
    digits: `${digits.slice(0, 4)} ${digits.slice(4)}`,
  };
}

/** The 64 pictures, in the order that belongs to the label's version. */
export const pictureNames = [
  'cat', 'horse', 'elephant', 'rabbit', 'penguin', 'turtle', 'fish', 'butterfly', 'duck', 'owl', 'frog', 'snail',
  'camel', 'giraffe', 'tree', 'sunflower', 'cactus', 'leaf', 'cloud', 'rainbow', 'moon', 'star', 'snowflake',
  'mountain', 'shell', 'feather', 'apple', 'banana', 'lemon', 'grapes', 'carrot', 'broccoli', 'bicycle', 'bus',
  'sailboat', 'balloon', 'castle', 'tent', 'tractor', 'anchor', 'scooter', 'fountain', 'umbrella', 'book', 'pencil',
  'guitar', 'drum', 'trumpet', 'piano', 'chair', 'backpack', 'sock', 'glove', 'scarf', 'glasses', 'crown', 'kite',
  'puzzle', 'dice', 'teapot', 'telescope', 'basket', 'compass', 'magnet',
] as const;
