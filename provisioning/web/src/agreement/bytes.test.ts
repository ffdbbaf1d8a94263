import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as b from './bytes.ts';

test('H is SHA-256 over length-prefixed label and inputs', async () => {
  // sha256(00000001 "a" 00000002 "bc" 00000000)
  const want = await b.sha256(b.fromHex('00000001' + '61' + '00000002' + '6263' + '00000000'));
  assert.equal(b.toHex(await b.H('a', b.utf8('bc'), new Uint8Array(0))), b.toHex(want));
  assert.notEqual(b.toHex(await b.H('a', b.utf8('b'), b.utf8('c'))), b.toHex(await b.H('a', b.utf8('bc'))));
});

test('a reader refuses short, long and foreign bytes', () => {
  assert.throws(() => new b.Reader(b.fromHex('0000')).u32(), b.MalformedError);
  assert.throws(() => new b.Reader(b.fromHex('00000005aabb')).lp(10), b.MalformedError);
  assert.throws(() => new b.Reader(b.fromHex('00000005aabbccddee')).lp(4), b.MalformedError);
  assert.throws(() => new b.Reader(b.lp(b.utf8('alcove/x/v2'))).label('alcove/x/v1'), b.MalformedError);
  assert.throws(() => new b.Reader(b.fromHex('00')).end(), b.MalformedError);
  assert.throws(() => new b.Reader(b.fromHex('0020000000000000')).u64(), b.MalformedError);
  assert.equal(new b.Reader(b.fromHex('001fffffffffffff')).u64(), Number.MAX_SAFE_INTEGER);
  assert.equal(b.toHex(b.u64(Number.MAX_SAFE_INTEGER)), '001fffffffffffff');
  assert.throws(() => b.u64(2 ** 53), RangeError);
  assert.throws(() => b.u32(2 ** 32), RangeError);
});

test('what is read is a copy', () => {
  const source = b.fromHex('0102');
  const got = new b.Reader(source).take(2);
  source[0] = 9;
  assert.equal(b.toHex(got), '0102');
});

test('hex and base64url have one spelling', () => {
  for (let n = 0; n < 70; n++) {
    const bytes = Uint8Array.from({ length: n }, (_, i) => (i * 37 + n * 101) & 0xff);
    const text = b.toBase64url(bytes);
    assert.equal(text, Buffer.from(bytes).toString('base64url'));
    assert.equal(b.toHex(b.fromBase64url(text)), b.toHex(bytes));
    assert.equal(b.toHex(b.fromHex(b.toHex(bytes))), b.toHex(bytes));
  }
  for (const bad of ['A', 'AB=', 'AA==', 'A+', 'A/', 'AB', 'AAB', 'é']) {
    assert.throws(() => b.fromBase64url(bad), b.MalformedError, bad);
  }
  for (const bad of ['0', '0A', 'zz']) assert.throws(() => b.fromHex(bad), b.MalformedError, bad);
  assert.throws(() => b.fromUtf8(b.fromHex('c328')), b.MalformedError);
  assert.throws(() => b.fromUtf8(b.fromHex('eda080')), b.MalformedError);
});

test('compare orders like bytes.Compare', () => {
  const list = ['', '00', '0000', '01', '7f', 'ff', 'ff00'].map(b.fromHex);
  for (let i = 0; i < list.length; i++) {
    for (let j = 0; j < list.length; j++) {
      assert.equal(Math.sign(b.compare(list[i]!, list[j]!)), Math.sign(i - j));
    }
  }
});
