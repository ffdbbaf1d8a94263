// ECDSA P-256 as rooms sign with their TPM: public key as SubjectPublicKeyInfo in DER (RFC 5480), signature in DER
// (RFC 3279 section 2.2.3), SHA-256. WebCrypto wants r ‖ s of 32 bytes each (IEEE P1363).

import { copy, MalformedError, type Bytes } from '../agreement/bytes.ts';

/** Verifies a DER signature. False for anything that is not valid, also for another kind of key. */
export async function verifyP256(spki: Uint8Array, signature: Uint8Array, message: Uint8Array): Promise<boolean> {
  try {
    const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
    const key = await crypto.subtle.importKey('spki', copy(spki), algorithm, false, ['verify']);
    return await crypto.subtle.verify({ name: 'ECDSA', hash: 'SHA-256' }, key, derToP1363(signature), copy(message));
  } catch {
    return false;
  }
}

/** Turns SEQUENCE { INTEGER r, INTEGER s } into r ‖ s. Throws MalformedError for anything but its one DER encoding. */
export function derToP1363(der: Uint8Array): Bytes {
  // Two integers of at most 33 bytes: lengths always fit in one byte.
  if (der.length < 8 || der.length > 72 || der[0] !== 0x30 || der[1] !== der.length - 2) {
    throw new MalformedError('signature is not DER');
  }
  const out = new Uint8Array(64);
  const at = readInteger(der, 2, out.subarray(0, 32));
  const end = readInteger(der, at, out.subarray(32));
  if (end !== der.length) throw new MalformedError('signature has trailing bytes');
  return out;
}

/** Writes the positive INTEGER at `at` right-aligned into `into`; returns where it ends. */
function readInteger(der: Uint8Array, at: number, into: Uint8Array): number {
  const length = der[at + 1];
  if (der[at] !== 0x02 || length === undefined || length === 0 || length > 33 || at + 2 + length > der.length) {
    throw new MalformedError('signature is not DER');
  }
  let value = der.subarray(at + 2, at + 2 + length);
  if (value[0]! & 0x80) throw new MalformedError('signature has a negative number');
  if (value[0] === 0 && length > 1) {
    if (!(value[1]! & 0x80)) throw new MalformedError('signature is not DER');
    value = value.subarray(1);
  }
  if (value.length > 32) throw new MalformedError('signature is too long');
  into.set(value, 32 - value.length);
  return at + 2 + length;
}
