// Owner signatures: Ed25519 and ML-DSA-65 together, as Tink makes them (tink-go v2.9.0, signature/compositemldsa, no
// prefix). The construct is MLDSA65-Ed25519-SHA512 of draft-ietf-lamps-pq-composite-sigs with an empty context:
//
//   key = ML-DSA-65 public key[1952] ‖ Ed25519 public key[32]
//   M'  = "CompositeAlgorithmSignatures2025" ‖ label ‖ 0x00 ‖ SHA-512(message)     label = "COMPSIG-MLDSA65-Ed25519-SHA512"
//   sig = ML-DSA-65.Sign(M', ctx = label)[3309] ‖ Ed25519.Sign(M')[64]
//
// Both halves must verify. The suite is fixed by the documents' version; nothing in a document can choose another.

import { ml_dsa65 } from '@noble/post-quantum/ml-dsa.js';
import { concat, copy, u8, utf8, type Bytes } from '../agreement/bytes.ts';

const mlDsaKeySize = 1952;
const mlDsaSignatureSize = 3309;

/** Size of an owner's public key. */
export const ownerKeySize = mlDsaKeySize + 32;
/** Size of an owner's signature. */
export const ownerSignatureSize = mlDsaSignatureSize + 64;

const label = utf8('COMPSIG-MLDSA65-Ed25519-SHA512');
const representativePrefix = utf8('CompositeAlgorithmSignatures2025');

/** Verifies one owner signature. False for anything that is not valid, also for keys and signatures of a wrong size. */
export async function verifyOwnerSignature(key: Uint8Array, signature: Uint8Array, message: Uint8Array): Promise<boolean> {
  if (key.length !== ownerKeySize || signature.length !== ownerSignatureSize) return false;
  const [postQuantumKey, classicalKey] = split(key, mlDsaKeySize);
  const [postQuantumSignature, classicalSignature] = split(signature, mlDsaSignatureSize);
  try {
    const hash = new Uint8Array(await crypto.subtle.digest('SHA-512', copy(message)));
    const representative = concat(representativePrefix, label, u8(0), hash);
    const imported = await crypto.subtle.importKey('raw', classicalKey, 'Ed25519', false, ['verify']);
    if (!(await crypto.subtle.verify('Ed25519', imported, classicalSignature, representative))) return false;
    return ml_dsa65.verify(postQuantumSignature, representative, postQuantumKey, { context: label });
  } catch {
    // A key that cannot be imported verifies nothing.
    return false;
  }
}

function split(bytes: Uint8Array, at: number): [Bytes, Bytes] {
  return [copy(bytes.subarray(0, at)), copy(bytes.subarray(at))];
}
