import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MalformedError, toHex, utf8 } from './bytes.ts';
import { endpointKeysFromSeeds, newEndpointKeys, seal, sealedSize, verifySignature } from './suite.ts';

test('what is sealed opens for its recipient and its info alone', async () => {
  const a = await newEndpointKeys();
  const b = await newEndpointKeys();
  const sealed = await seal(a.kemPublic, utf8('info'), utf8('secret'));
  assert.equal(sealed.length, sealedSize(6));
  assert.equal(toHex(await a.open(sealed, utf8('info'))), toHex(utf8('secret')));
  await assert.rejects(a.open(sealed, utf8('other')), MalformedError);
  await assert.rejects(b.open(sealed, utf8('info')), MalformedError);
  await assert.rejects(a.open(sealed.slice(0, -1), utf8('info')), MalformedError);
  await assert.rejects(a.open(new Uint8Array(10), utf8('info')), MalformedError);
  for (const at of [0, 600, 1100, 1119, 1120, sealed.length - 1]) {
    const changed = new Uint8Array(sealed);
    changed[at]! ^= 1;
    await assert.rejects(a.open(changed, utf8('info')), MalformedError, `byte ${at}`);
  }
  await assert.rejects(seal(a.kemPublic.slice(1), utf8('info'), utf8('secret')));
});

test('seeds give the same keys again (RFC 8032 section 7.1, test 1)', async () => {
  const seed = Uint8Array.from(Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex'));
  const keys = await endpointKeysFromSeeds(seed, new Uint8Array(32).fill(5));
  assert.equal(toHex(keys.sigPublic), 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a');
  const signature = await keys.sign(new Uint8Array(0));
  assert.equal(await verifySignature(keys.sigPublic, signature, new Uint8Array(0)), true);
  assert.equal(await verifySignature(keys.sigPublic, signature, utf8('x')), false);
  assert.equal(await verifySignature(keys.sigPublic.slice(1), signature, new Uint8Array(0)), false);
  const again = await endpointKeysFromSeeds(seed, new Uint8Array(32).fill(5));
  assert.equal(toHex(again.kemPublic), toHex(keys.kemPublic));
});
