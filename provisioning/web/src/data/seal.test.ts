import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { concat, fromHex, H, MalformedError, toHex, u32, u64, utf8, type Bytes } from '../agreement/bytes.ts';
import { DataOpener, DataSealer, deriveDataKey, maxDataMessage, readDataHeader, type DataContext } from './seal.ts';

const secret = new Uint8Array(32).fill(7);

async function context(over: Partial<DataContext> = {}): Promise<DataContext> {
  return {
    key: await deriveDataKey(secret),
    gen: 3,
    T: new Uint8Array(32).fill(1),
    from: new Uint8Array(32).fill(2),
    ...over,
  };
}

/** The format written a second time, straight from its description, with its own HKDF steps (RFC 5869). */
async function reference(body: Bytes, iv: Bytes, seq: number, c: DataContext, secret: Bytes): Promise<Bytes> {
  const hmac = async (key: Bytes, data: Bytes) => {
    const k = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
    return new Uint8Array(await crypto.subtle.sign('HMAC', k, data));
  };
  const prk = await hmac(utf8('alcove/data/v1'), secret);
  const okm = await hmac(prk, Uint8Array.of(1));
  const key = await crypto.subtle.importKey('raw', okm, 'AES-GCM', false, ['encrypt']);
  const additionalData = await H('alcove/data/v1', c.T, c.from, u32(c.gen), u64(seq));
  const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData }, key, body);
  return concat(Uint8Array.of(1), u32(c.gen), u64(seq), iv, new Uint8Array(sealed));
}

test('a message opens once, in order, with what was sealed', async () => {
  const sealer = new DataSealer(await context());
  const opener = new DataOpener(await context());
  const first = await sealer.seal(utf8('{"t":"keyframe"}'));
  const second = await sealer.seal(utf8('two'));
  const third = await sealer.seal(new Uint8Array(0));
  assert.deepEqual(readDataHeader(first), { gen: 3, seq: 1 });
  assert.equal(toHex(await opener.open(first)), toHex(utf8('{"t":"keyframe"}')));
  await assert.rejects(opener.open(first), MalformedError, 'replayed');
  assert.equal((await opener.open(third)).length, 0);
  await assert.rejects(opener.open(second), MalformedError, 'late');
});

test('both directions agree with an independent writing of the format', async () => {
  const iv = fromHex('000102030405060708090a0b');
  const packet = await reference(utf8('from elsewhere'), iv, 9, await context(), secret);
  assert.equal(new TextDecoder().decode(await new DataOpener(await context()).open(packet)), 'from elsewhere');

  const sealed = await new DataSealer(await context()).seal(utf8('from here'));
  assert.equal(toHex(sealed), toHex(await reference(utf8('from here'), sealed.slice(13, 25), 1, await context(), secret)));
});

interface Vector {
  readonly secret: string;
  readonly T: string;
  readonly from: string;
  readonly gen: number;
  readonly messages: readonly { readonly body: string; readonly sealed: string }[];
}

test('what the room seals opens, and is what a page would have sealed', async () => {
  const vectors = JSON.parse(readFileSync('src/data/testdata/vectors.json', 'utf8')) as Vector[];
  for (const v of vectors) {
    const secret = fromHex(v.secret);
    const c = { key: await deriveDataKey(secret), gen: v.gen, T: fromHex(v.T), from: fromHex(v.from) };
    const opener = new DataOpener(c);
    for (const m of v.messages) {
      const sealed = fromHex(m.sealed);
      assert.equal(toHex(await opener.open(sealed)), m.body);
      const { seq } = readDataHeader(sealed);
      assert.equal(toHex(await reference(fromHex(m.body), sealed.slice(13, 25), seq, c, secret)), m.sealed);
    }
  }
});

test('concurrent seals never share a number, concurrent opens never open twice', async () => {
  const sealer = new DataSealer(await context());
  const packets = await Promise.all(Array.from({ length: 20 }, (_, i) => sealer.seal(Uint8Array.of(i))));
  assert.equal(new Set(packets.map((p) => readDataHeader(p).seq)).size, 20);
  const opener = new DataOpener(await context());
  const results = await Promise.allSettled([packets[4]!, packets[4]!, packets[4]!].map((p) => opener.open(p)));
  assert.equal(results.filter((r) => r.status === 'fulfilled').length, 1);
});

test('every one-byte change is refused and does not move the window', async () => {
  const packet = await new DataSealer(await context()).seal(utf8('hello'));
  const opener = new DataOpener(await context());
  for (let i = 0; i < packet.length; i++) {
    const changed = new Uint8Array(packet);
    changed[i]! ^= 0x80;
    await assert.rejects(opener.open(changed), MalformedError, `byte ${i}`);
  }
  assert.equal(toHex(await opener.open(packet)), toHex(utf8('hello')));
});

test('another transcript, sender, generation or secret does not open', async () => {
  const packet = await new DataSealer(await context()).seal(utf8('hello'));
  const others: Partial<DataContext>[] = [
    { T: new Uint8Array(32).fill(9) },
    { from: new Uint8Array(32).fill(9) },
    { gen: 4 },
    { key: await deriveDataKey(new Uint8Array(32).fill(8)) },
  ];
  for (const other of others) {
    await assert.rejects(new DataOpener(await context(other)).open(packet), MalformedError);
  }
});

test('truncated, oversized and foreign packets are refused', async () => {
  const packet = await new DataSealer(await context()).seal(utf8('hello'));
  const opener = new DataOpener(await context());
  for (let n = 0; n < packet.length; n++) await assert.rejects(opener.open(packet.slice(0, n)), MalformedError);
  await assert.rejects(opener.open(concat(packet, Uint8Array.of(0))), MalformedError);
  await assert.rejects(opener.open(new Uint8Array(maxDataMessage + 1000)), MalformedError);
  const sealer = new DataSealer(await context());
  await assert.rejects(sealer.seal(new Uint8Array(maxDataMessage + 1)), RangeError);
  await assert.rejects(deriveDataKey(new Uint8Array(31)), RangeError);
});
