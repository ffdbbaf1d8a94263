import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { concat, fromHex } from '../agreement/bytes.ts';
import { ownerKeySize, ownerSignatureSize, verifyOwnerSignature } from './composite.ts';

interface Vector {
  readonly name: string;
  readonly key: string;
  readonly message: string;
  readonly signature: string;
}

const vectors = JSON.parse(readFileSync('src/trust/testdata/composite.json', 'utf8')) as Vector[];

for (const v of vectors) {
  test(`a signature of Tink's: ${v.name}`, async () => {
    const key = fromHex(v.key);
    const message = fromHex(v.message);
    const signature = fromHex(v.signature);
    assert.equal(key.length, ownerKeySize);
    assert.equal(signature.length, ownerSignatureSize);
    assert.equal(await verifyOwnerSignature(key, signature, message), true);
    assert.equal(await verifyOwnerSignature(key, signature, concat(message, Uint8Array.of(0))), false);
    assert.equal(await verifyOwnerSignature(key, signature.slice(0, -1), message), false);
    assert.equal(await verifyOwnerSignature(key, concat(signature, Uint8Array.of(0)), message), false);
    assert.equal(await verifyOwnerSignature(key, new Uint8Array(0), message), false);
    assert.equal(await verifyOwnerSignature(key.slice(1), signature, message), false);
    // One change in either half is enough to refuse.
    for (const at of [0, 1000, 3308, 3309, 3340, 3372]) {
      const changed = new Uint8Array(signature);
      changed[at]! ^= 1;
      assert.equal(await verifyOwnerSignature(key, changed, message), false, `signature byte ${at}`);
    }
    for (const at of [0, 31, 32, 1951, 1952, 1983]) {
      const changed = new Uint8Array(key);
      changed[at]! ^= 1;
      assert.equal(await verifyOwnerSignature(changed, signature, message), false, `key byte ${at}`);
    }
  });
}

test("another owner's key refuses", async () => {
  const [a, b] = vectors;
  assert.equal(await verifyOwnerSignature(fromHex(b!.key), fromHex(a!.signature), fromHex(a!.message)), false);
});

test('halves of two signers do not make one signature', async () => {
  const [a, b] = vectors;
  const key = concat(fromHex(a!.key).slice(0, 1952), fromHex(b!.key).slice(1952));
  assert.equal(await verifyOwnerSignature(key, fromHex(a!.signature), fromHex(a!.message)), false);
  assert.equal(await verifyOwnerSignature(key, fromHex(b!.signature), fromHex(b!.message)), false);
});
