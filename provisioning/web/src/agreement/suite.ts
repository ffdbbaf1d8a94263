// The cryptographic suite of the key agreement, fixed by version and never negotiated: Ed25519 signatures, and HPKE
// (RFC 9180) base mode with X-Wing (KEM 0x647a), HKDF-SHA256 and AES-256-GCM. Sealed form: enc[1120] ‖ ciphertext,
// as Tink's NO_PREFIX variant writes it.
//
// The Ed25519 private key is a non-extractable WebCrypto key. X-Wing is not part of WebCrypto: its private key is a
// JavaScript object of @hpke/hybridkem-x-wing whose bytes this page's code could read. It therefore never leaves this
// module: it is held by a closure, no function returns it, and it ends with the page. Whoever can run code in the page
// could read it, and could as well seal and open with a key that is not extractable, for as long as that code runs.

import { Aes256Gcm, CipherSuite, HkdfSha256 } from '@hpke/core';
import { XWing } from '@hpke/hybridkem-x-wing';
import { concat, copy, MalformedError, type Bytes } from './bytes.ts';

export const kemPublicSize = 1216;
export const sigPublicSize = 32;
export const signatureSize = 64;
const encSize = 1120;
const aeadTagSize = 16;

/** Draws 32 bytes for a nonce or a secret. */
export type Random = () => Bytes;

/** The platform's generator. */
export const systemRandom: Random = () => crypto.getRandomValues(new Uint8Array(32));

/** Size of a sealed plaintext of n bytes. */
export function sealedSize(n: number): number {
  return encSize + n + aeadTagSize;
}

const suite = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });

/** The private halves of an endpoint's keys: they can be used and not taken. */
export interface EndpointKeys {
  readonly kemPublic: Bytes;
  readonly sigPublic: Bytes;
  sign(message: Bytes): Promise<Bytes>;
  /** Opens what was sealed for this endpoint. Throws MalformedError when it does not open. */
  open(sealed: Bytes, info: Bytes): Promise<Bytes>;
}

/** Makes fresh keys, for one session and one page load. Fails in a browser without WebCrypto Ed25519. */
export async function newEndpointKeys(): Promise<EndpointKeys> {
  const sig = (await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])) as CryptoKeyPair;
  return endpointKeys(sig, await suite.kem.generateKeyPair());
}

/** Keys from a 32-byte Ed25519 seed and a 32-byte X-Wing seed: how the shared test vectors fix an endpoint. */
export async function endpointKeysFromSeeds(sigSeed: Bytes, kemSeed: Bytes): Promise<EndpointKeys> {
  return endpointKeys(await ed25519FromSeed(sigSeed), await new XWing().generateKeyPairDerand(kemSeed));
}

async function ed25519FromSeed(seed: Bytes): Promise<CryptoKeyPair> {
  // RFC 8410 section 7: the PKCS #8 wrapping of a 32-byte Ed25519 private key. WebCrypto computes no public key from a
  // private one, so it is taken from the key's JWK form.
  const prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
  const pkcs8 = concat(Uint8Array.from(prefix), seed);
  const readable = await crypto.subtle.importKey('pkcs8', pkcs8, 'Ed25519', true, ['sign']);
  const { x } = await crypto.subtle.exportKey('jwk', readable);
  const publicKey = await crypto.subtle.importKey('jwk', { kty: 'OKP', crv: 'Ed25519', x: x! }, 'Ed25519', true, ['verify']);
  return { privateKey: await crypto.subtle.importKey('pkcs8', pkcs8, 'Ed25519', false, ['sign']), publicKey };
}

async function endpointKeys(sig: CryptoKeyPair, kem: CryptoKeyPair): Promise<EndpointKeys> {
  return {
    kemPublic: new Uint8Array(await suite.kem.serializePublicKey(kem.publicKey)),
    sigPublic: new Uint8Array(await crypto.subtle.exportKey('raw', sig.publicKey)),
    async sign(message) {
      return new Uint8Array(await crypto.subtle.sign('Ed25519', sig.privateKey, message));
    },
    async open(sealed, info) {
      if (sealed.length < sealedSize(0)) throw new MalformedError('sealed secret is too short');
      try {
        const recipient = { recipientKey: kem, enc: sealed.slice(0, encSize), info };
        return new Uint8Array(await suite.open(recipient, sealed.slice(encSize)));
      } catch {
        throw new MalformedError('sealed secret does not open');
      }
    },
  };
}

/** Seals for the endpoint with this KEM public key. Throws for a key that is no X-Wing key. */
export async function seal(kemPublic: Bytes, info: Bytes, plaintext: Bytes): Promise<Bytes> {
  const recipientPublicKey = await suite.kem.deserializePublicKey(copy(kemPublic));
  const { enc, ct } = await suite.seal({ recipientPublicKey, info }, plaintext);
  return concat(new Uint8Array(enc), new Uint8Array(ct));
}

/** Verifies an Ed25519 signature; false also for a key that cannot be imported. */
export async function verifySignature(sigPublic: Bytes, signature: Bytes, message: Bytes): Promise<boolean> {
  if (sigPublic.length !== sigPublicSize || signature.length !== signatureSize) return false;
  try {
    const key = await crypto.subtle.importKey('raw', sigPublic, 'Ed25519', false, ['verify']);
    return await crypto.subtle.verify('Ed25519', key, signature, message);
  } catch {
    return false;
  }
}
