// Documents made and judged by provisioning/document (see provisioning/web/webtest): the page comes to the same verdict.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Claim } from '../agreement/api.ts';
import { concat, fromHex, lp, MalformedError, toHex, utf8, type Bytes } from '../agreement/bytes.ts';
import { newEndpoint } from '../agreement/document.ts';
import { encodeProof, hubProof, type Proof } from '../agreement/proof.ts';
import { openClinic, type Clinic } from './clinic.ts';
import { readTime } from './documents.ts';
import { RefusedError } from './envelope.ts';

interface Parts {
  readonly owner_roots: readonly number[];
  readonly roster: number | null;
  readonly people: number | null;
  readonly config: number | null;
}

interface Vector {
  readonly name: string;
  readonly clinic: string;
  readonly now: number;
  readonly parts?: Parts;
  readonly answer?: string;
  readonly holds: boolean;
}

interface File {
  readonly envelopes: readonly unknown[];
  readonly trust: readonly Vector[];
  readonly proof: Readonly<Record<'D' | 'K' | 'body' | 'spki' | 'label', string>>;
}

const file = JSON.parse(readFileSync('src/trust/testdata/trust.json', 'utf8')) as File;

function answerOf(v: Vector): Bytes {
  if (!v.parts) return utf8(v.answer!);
  const at = (i: number | null) => (i === null ? null : file.envelopes[i]);
  const { owner_roots, roster, people, config } = v.parts;
  return utf8(JSON.stringify({
    owner_roots: owner_roots.map(at), roster: at(roster), people: at(people), config: at(config),
  }));
}

function open(v: Vector): Promise<Clinic> {
  return openClinic(v.clinic, answerOf(v), () => v.now);
}

function vector(name: string): Vector {
  return file.trust.find((v) => v.name === name)!;
}

for (const v of file.trust) {
  test(`${v.holds ? 'believes' : 'refuses'}: ${v.name}`, async () => {
    if (v.holds) {
      assert.equal((await open(v)).trust.clinic, v.clinic);
      return;
    }
    await assert.rejects(open(v), (err) => err instanceof RefusedError || err instanceof MalformedError);
  });
}

test('what a page learns of a clinic', async () => {
  const clinic = await open(vector('honest'));
  assert.equal(clinic.trust.name, 'Praxis am Fluß');
  assert.equal(clinic.trust.demo, true);
  assert.equal(toHex(clinic.hash), clinic.trust.clinic);
  assert.deepEqual(clinic.roster.devices.map((d) => [d.id, d.room, d.label, d.keyProtection]), [
    ['room-1', 'blue', 'Blue room', 'host'],
  ]);
  // A role that the clinic did not name needs the highest.
  assert.deepEqual(clinic.minLevel, { therapist: 1, patient: 1, guest: 3 });
  assert.deepEqual((await open(vector('no config, no people'))).minLevel, {});
});

async function claim(over: Partial<Claim> & { body?: Bytes } = {}): Promise<Claim> {
  const session = { clinic: new Uint8Array(32), sid: new Uint8Array(16) };
  const { document } = await newEndpoint(session, 'guest', 'not looked at');
  const proof: Proof = { kind: 'device', level: 3, body: over.body ?? fromHex(file.proof.body) };
  return { document, D: fromHex(file.proof.D), K: fromHex(file.proof.K), proof, must: 3, ...over };
}

test("the room's proof is verified with the clinic's roster", async () => {
  const clinic = await open(vector('honest'));
  const good = await claim();
  assert.equal(clinic.device(good.D), undefined);
  assert.equal(await clinic.verify(good), 3);
  assert.equal(clinic.device(good.D)!.label, file.proof.label);

  const refused = (c: Claim, in_ = clinic) => assert.rejects(in_.verify(c), (err) => err instanceof RefusedError || err instanceof MalformedError);
  await refused(await claim({ K: new Uint8Array(32) }));
  await refused(await claim({ D: new Uint8Array(32) }));
  await refused(await claim({ body: concat(fromHex(file.proof.body), Uint8Array.of(0)) }));
  const changed = fromHex(file.proof.body);
  changed[changed.length - 1]! ^= 1;
  await refused(await claim({ body: changed }));
  await refused(await claim({ body: concat(lp(new Uint8Array(91)), lp(new Uint8Array(70))) }));
  // Not listed any more, and listed for a time that has passed.
  await refused(good, await open(vector('an empty roster')));
  await refused(good, await openClinic(clinic.trust.clinic, answerOf(vector('honest')), clockAfter(vector('honest').now)));
  assert.equal(await (await open(vector('config for one room'))).verify(good), 3);
});

/** A clock that stands at `now` when documents are opened and 13 hours later when a proof is judged. */
function clockAfter(now: number): () => number {
  let calls = 0;
  return () => (calls++ === 0 ? now : now + 13 * 3600 * 1000);
}

test("others' proofs are as good as a page can tell", async () => {
  const clinic = await open(vector('honest'));
  assert.equal(await clinic.verify(await claim({ proof: hubProof, must: 0 })), 1);
  assert.equal(await clinic.verify(await claim({ proof: { kind: 'passkey', level: 3, body: utf8('x') }, must: 0 })), 0);
  assert.equal(toHex(encodeProof(hubProof)), '040100000000');
});

test('times', () => {
  assert.equal(readTime('2026-03-01T12:00:00Z'), Date.UTC(2026, 2, 1, 12));
  assert.equal(readTime('2026-03-01T12:00:00.123456789Z'), Date.UTC(2026, 2, 1, 12));
  for (const bad of ['2026-03-01', '2026-03-01T12:00:00', '2026-03-01T12:00:00+00:00', '2026-02-29T12:00:00Z', '2026-03-01t12:00:00Z', '2026-03-01T24:00:00Z', '2026-13-01T00:00:00Z', '']) {
    assert.throws(() => readTime(bad), MalformedError, bad);
  }
});
