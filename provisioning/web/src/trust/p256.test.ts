import assert from 'node:assert/strict';
import { createSign, generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { concat, fromHex, MalformedError, toHex, utf8 } from '../agreement/bytes.ts';
import { derToP1363, verifyP256 } from './p256.ts';

test('signatures of another library verify, changed ones do not', async () => {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ type: 'spki', format: 'der' });
  const message = utf8('a proof');
  // Enough signatures to meet short and sign-padded numbers.
  for (let i = 0; i < 300; i++) {
    const der = createSign('SHA256').update(message).sign(privateKey);
    assert.equal(await verifyP256(spki, der, message), true);
    if (i > 3) continue;
    assert.equal(await verifyP256(spki, der, utf8('another')), false);
    for (let at = 0; at < der.length; at++) {
      const changed = new Uint8Array(der);
      changed[at]! ^= 1;
      assert.equal(await verifyP256(spki, changed, message), false, `byte ${at}`);
    }
    assert.equal(await verifyP256(spki, concat(der, Uint8Array.of(0)), message), false);
    assert.equal(await verifyP256(spki, derToP1363(der), message), false, 'another encoding');
    assert.equal(await verifyP256(spki.subarray(1), der, message), false);
  }
  const other = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const der = createSign('SHA256').update(message).sign(other.privateKey);
  assert.equal(await verifyP256(other.publicKey.export({ type: 'spki', format: 'der' }), der, message), false);
});

test('DER has one form', () => {
  assert.equal(toHex(derToP1363(fromHex('3006020101020102'))), '00'.repeat(31) + '01' + '00'.repeat(31) + '02');
  assert.equal(
    toHex(derToP1363(fromHex('300702020080020102'))),
    '00'.repeat(31) + '80' + '00'.repeat(31) + '02',
  );
  const bad = [
    '', '3006', '300602010102010200', '3005020101020102', '3106020101020102', '3006030101020102', '3006020181020102',
    '30070202000102010200', '300702020001020102', '3006020201020102', '308106020101020102', '30060201010201',
    '3004020002010102', '30' + '46' + '0222' + '00' + 'ff'.repeat(33) + '0220' + '7f'.repeat(32),
  ];
  for (const hex of bad) assert.throws(() => derToP1363(fromHex(hex)), MalformedError, hex);
});
