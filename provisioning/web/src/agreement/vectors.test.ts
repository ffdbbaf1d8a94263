// The vectors shared with daemon/e2ee/agreement, made there: every formula, every message, and whole rounds.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { deriveDataKey } from '../data/seal.ts';
import { verifyP256 } from '../trust/p256.ts';
import type { AgreedKey, Effect } from './api.ts';
import { compare, concat, equal, fromHex, H, lp, MalformedError, sha256, toBase64url, toHex, u32, utf8, type Bytes } from './bytes.ts';
import { documentHash, endpointOf, encodeDocument, identityOf, parseDocument, roleOf } from './document.ts';
import * as formulas from './formulas.ts';
import { Member } from './member.ts';
import { hubProof, parseProof, readDeviceProof } from './proof.ts';
import { endpointKeysFromSeeds, seal, verifySignature } from './suite.ts';
import { parse } from './wire.ts';

interface Vectors {
  readonly hashes: readonly { readonly label: string; readonly args: readonly string[]; readonly hash: string }[];
  readonly formulas: Readonly<Record<string, string>> & {
    readonly documents: readonly string[];
    readonly d: readonly string[];
    readonly eid: readonly string[];
    readonly nonces: readonly string[];
    readonly commits: readonly string[];
  };
  readonly compare: readonly { readonly t: string; readonly code: string; readonly pictures: number[]; readonly digits: string }[];
  readonly messages: readonly { readonly name: string; readonly bytes: string; readonly signer_seed: string }[];
  readonly ed25519: Readonly<Record<'seed' | 'public' | 'message' | 'signature', string>>;
  readonly xwing: Readonly<Record<'seed' | 'public' | 'info' | 'plain' | 'sealed', string>>;
  readonly device_proof: Readonly<Record<'spki' | 'spki_sha256' | 'd' | 'k' | 'proof', string>>;
  readonly keys: Readonly<Record<'secret' | 'frame_aes128' | 'data_aes256', string>>;
  readonly rounds: readonly RoundVector[];
  readonly pictures: readonly string[];
}

interface RoundVector {
  readonly name: string;
  readonly clinic: string;
  readonly sid: string;
  readonly members: readonly {
    readonly role: number;
    readonly name: string;
    readonly sig_seed: string;
    readonly kem_seed: string;
    readonly salt: string;
    readonly document: string;
    readonly d: string;
    readonly eid: string;
    readonly draws: readonly string[];
  }[];
  readonly messages: readonly { readonly at_ms: number; readonly from: number; readonly label: string; readonly bytes: string }[];
  readonly epochs: readonly {
    readonly number: number;
    readonly t: string;
    readonly code: string;
    readonly pictures: number[];
    readonly digits: string;
    readonly d: readonly string[];
    readonly secrets_by_d: Readonly<Record<string, string>>;
  }[];
}

const text = readFileSync('../../daemon/e2ee/agreement/testdata/vectors.json', 'utf8');
const vectors = JSON.parse(text) as Vectors;

async function importSecret(secret: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveBits']);
}

/** The AES key that livekit-client derives from key material. */
async function frameKey(material: CryptoKey): Promise<string> {
  const params = { name: 'HKDF', hash: 'SHA-256', salt: utf8('LKFrameEncryptionKey'), info: new Uint8Array(128) };
  return toHex(new Uint8Array(await crypto.subtle.deriveBits(params, material, 128)));
}

test('hashes', async () => {
  for (const v of vectors.hashes) {
    assert.equal(toHex(await H(v.label, ...v.args.map(fromHex))), v.hash);
  }
});

test('documents', async () => {
  for (const [i, hex] of vectors.formulas.documents.entries()) {
    const bytes = fromHex(hex);
    const D = await documentHash(bytes);
    assert.equal(toHex(D), vectors.formulas.d[i]);
    assert.equal(identityOf(D), vectors.formulas.eid[i]);
    assert.equal(toHex(encodeDocument(parseDocument(bytes))), hex);
    for (let n = 0; n < bytes.length; n += 11) assert.throws(() => parseDocument(bytes.slice(0, n)), MalformedError);
    assert.throws(() => parseDocument(concat(bytes, Uint8Array.of(0))), MalformedError);
  }
});

test('formulas of a round', async () => {
  const f = vectors.formulas;
  const value = (name: string) => fromHex(f[name]!);
  const D = f.d.map(fromHex);
  const ascending = [...D].sort(compare);
  const nonces = f.nonces.map(fromHex);
  const prev = value('prev_t');
  const session = { clinic: value('clinic'), sid: value('sid') };
  assert.equal(toHex(await formulas.firstTranscript(session)), f['t0']);
  const P = await formulas.proposalHash(value('proposal_unsigned'));
  assert.equal(toHex(P), f['p']);
  const commits = await Promise.all(ascending.map((d, i) => formulas.commitment(P, d, nonces[i]!)));
  assert.deepEqual(commits.map(toHex), f.commits);
  const K = await formulas.commitSetHash(P, commits);
  assert.equal(toHex(K), f['k']);
  const levels = [...Buffer.from(f['levels']!, 'base64')];
  assert.equal(toHex(await formulas.transcriptHash(prev, P, K, nonces, levels)), f['t']);
  const T = value('t');
  assert.equal(toHex(await formulas.sealInfo(T, D[0]!, D[1]!)), f['seal_info_from_0_to_1']);
  assert.equal(toHex(await formulas.secretHash(value('secret'))), f['secret_hash']);
  assert.equal(toHex(await formulas.passkeyChallenge(D[0]!, value('dch'))), f['passkey_challenge_0']);
  assert.equal(toHex(await H('alcove/proof-oidc/v1', D[0]!, value('dch'))), f['oidc_nonce_0']);
  // The vector's number is beyond what a number holds exactly.
  const seq = new Uint8Array(8);
  new DataView(seq.buffer).setBigUint64(0, BigInt(/"data_seq": "?(\d+)/.exec(text)![1]!));
  const aad = await H('alcove/data/v1', T, D[0]!, u32(Number(f['data_gen'])), seq);
  assert.equal(toHex(aad), f['data_aad_from_0']);
  const patientByTouch = Uint8Array.of(3, 1);
  const admit = concat(lp(utf8('alcove/admit/v1')), session.sid, prev, D[1]!, patientByTouch);
  assert.equal(toHex(await formulas.admissionHash(admit)), f['admit_hash']);
});

test('what people compare', async () => {
  assert.deepEqual([...formulas.pictureNames], vectors.pictures);
  for (const v of vectors.compare) {
    const { code, pictures, digits } = await formulas.comparisonOf(fromHex(v.t));
    assert.deepEqual({ t: v.t, code, pictures, digits }, v);
  }
});

/** No message, or one whose signature does not hold: a list that is cut may still be a list. */
async function refused(raw: Bytes, sigPublic: Bytes): Promise<void> {
  try {
    const m = parse(raw);
    assert.equal(await verifySignature(sigPublic, m.sig, m.signed), false);
  } catch (err) {
    assert.ok(err instanceof MalformedError, String(err));
  }
}

test('every message parses, verifies, and refuses every change', async () => {
  for (const v of vectors.messages) {
    const raw = fromHex(v.bytes);
    const m = parse(raw);
    assert.equal(`alcove/${m.t}/v1`, v.name);
    const { sigPublic } = await endpointKeysFromSeeds(fromHex(v.signer_seed), new Uint8Array(32));
    assert.equal(await verifySignature(sigPublic, m.sig, m.signed), true, v.name);
    for (let i = 0; i < raw.length; i += 1 + Math.floor(raw.length / 97)) {
      const changed = new Uint8Array(raw);
      changed[i]! ^= 4;
      // Either it is no message any more, or its signature does not hold, or it names another signer.
      try {
        const other = parse(changed);
        const signer = 'signer' in other ? !equal(other.signer, 'signer' in m ? m.signer : other.signer) : false;
        assert.ok(signer || !(await verifySignature(sigPublic, other.sig, other.signed)), `${v.name} byte ${i}`);
      } catch (err) {
        assert.ok(err instanceof MalformedError, String(err));
      }
    }
    for (let n = 0; n < raw.length; n += 7) await refused(raw.slice(0, n), sigPublic);
    for (const n of [1, 4, 64]) await refused(concat(raw, new Uint8Array(n)), sigPublic);
  }
});

test('Ed25519 and X-Wing', async () => {
  const { ed25519, xwing } = vectors;
  const keys = await endpointKeysFromSeeds(fromHex(ed25519.seed), fromHex(xwing.seed));
  assert.equal(toHex(keys.sigPublic), ed25519.public);
  assert.equal(toHex(await keys.sign(fromHex(ed25519.message))), ed25519.signature);
  assert.equal(toHex(keys.kemPublic), xwing.public);
  assert.equal(toHex(await keys.open(fromHex(xwing.sealed), fromHex(xwing.info))), xwing.plain);
  const sealed = await seal(keys.kemPublic, fromHex(xwing.info), fromHex(xwing.plain));
  assert.equal(sealed.length, fromHex(xwing.sealed).length);
  assert.equal(toHex(await keys.open(sealed, fromHex(xwing.info))), xwing.plain);
});

test("the room's proof", async () => {
  const v = vectors.device_proof;
  const proof = readDeviceProof(parseProof(fromHex(v.proof)), fromHex(v.d), fromHex(v.k));
  assert.equal(toHex(proof.spki), v.spki);
  assert.equal(toHex(await sha256(proof.spki)), v.spki_sha256);
  assert.equal(await verifyP256(proof.spki, proof.signature, proof.message), true);
  const other = readDeviceProof(parseProof(fromHex(v.proof)), fromHex(v.k), fromHex(v.d));
  assert.equal(await verifyP256(other.spki, other.signature, other.message), false);
});

test('keys of frames and data', async () => {
  const secret = fromHex(vectors.keys.secret);
  assert.equal(await frameKey(await importSecret(secret)), vectors.keys.frame_aes128);
  // The data key cannot be exported: it opens what the vector's key sealed.
  const iv = new Uint8Array(12);
  const key = await crypto.subtle.importKey('raw', fromHex(vectors.keys.data_aes256), 'AES-GCM', false, ['encrypt']);
  const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, utf8('x'));
  const opened = await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, await deriveDataKey(secret), sealed);
  assert.equal(new TextDecoder().decode(opened), 'x');
});

/** A member of a recorded session, driven by what the others sent. */
async function replay(v: RoundVector, index: number): Promise<{ effects: Effect[]; sent: Bytes[] }> {
  const me = v.members[index]!;
  const keys = await endpointKeysFromSeeds(fromHex(me.sig_seed), fromHex(me.kem_seed));
  const session = { clinic: fromHex(v.clinic), sid: fromHex(v.sid) };
  const endpoint = await endpointOf(session, roleOf(me.role), me.name, keys, fromHex(me.salt));
  assert.equal(toHex(endpoint.doc), me.document);
  assert.equal(toHex(endpoint.D), me.d);
  assert.equal(endpoint.eid, me.eid);
  assert.equal(toBase64url(endpoint.D.slice(0, 16)), me.eid);
  const draws = me.draws.map(fromHex);
  const config = {
    prove: () => hubProof,
    verify: async (claim: { readonly must: number }) => (claim.must === 3 ? 3 : 1) as 1 | 3,
    minLevel: { therapist: 1 as const },
  };
  const member = new Member(endpoint, config, () => draws.shift()!);
  const effects: Effect[] = [];
  for (const m of v.messages) {
    if (m.from !== index) effects.push(...(await member.handle(m.at_ms, fromHex(m.bytes))));
  }
  assert.equal(draws.length, 0, 'every recorded draw was used');
  return { effects, sent: effects.filter((e) => e.t === 'send').map((e) => e.message) };
}

async function frameKeyOf(key: AgreedKey): Promise<string> {
  return frameKey(key.frames);
}

for (const v of vectors.rounds) {
  for (const [index, me] of v.members.entries()) {
    if (me.role === 1) continue;
    test(`replay of "${v.name}" as ${me.name}`, async () => {
      const { effects, sent } = await replay(v, index);
      const recorded = v.messages.filter((m) => m.from === index);

      // What has no fresh randomness in it is the same to the byte; of ready, the last state.
      for (const label of ['alcove/commit/v1', 'alcove/reveal/v1']) {
        const want = recorded.filter((m) => m.label === label).map((m) => m.bytes);
        assert.deepEqual(sent.filter((b) => `alcove/${parse(b).t}/v1` === label).map(toHex), want, label);
      }
      const ready = recorded.filter((m) => m.label === 'alcove/ready/v1').at(-1)!.bytes;
      assert.equal(toHex(sent.filter((b) => parse(b).t === 'ready').at(-1)!), ready);
      const keys = recorded.filter((m) => m.label === 'alcove/keys/v1').map((m) => parse(fromHex(m.bytes)));
      const own = sent.map(parse).filter((m) => m.t === 'keys');
      assert.deepEqual(own.map((m) => [m.gen, m.idx, toHex(m.secretHash)]), keys.map((m) => {
        assert.ok(m.t === 'keys');
        return [m.gen, m.idx, toHex(m.secretHash)];
      }));

      const epochs = v.epochs.filter((e) => e.d.includes(me.d));
      const got = effects.filter((e) => e.t === 'epoch').map(({ epoch: e }) => ({
        number: e.number, t: toHex(e.T), code: e.code, pictures: e.pictures, digits: e.digits,
        d: e.members.map((m) => toHex(m.D)),
      }));
      assert.deepEqual(got, epochs.map(({ number, t, code, pictures, digits, d }) => ({ number, t, code, pictures, digits, d })));

      const last = epochs.at(-1)!;
      for (const d of last.d) {
        const want = await frameKey(await importSecret(fromHex(last.secrets_by_d[d]!)));
        const key = d === me.d
          ? effects.filter((e) => e.t === 'sendKey').at(-1)!.key
          : effects.filter((e) => e.t === 'recvKey').filter((e) => toHex(e.D) === d).at(-1)!.key;
        assert.equal(await frameKeyOf(key), want);
      }
      assert.deepEqual(effects.filter((e) => e.t === 'sending').at(-1), { t: 'sending', allowed: true, reason: 'none' });
    });
  }
}
