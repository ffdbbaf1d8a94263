import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyProviderEvent } from 'livekit-client';
import { CallKeys, KeyRing } from './keys.ts';
import { keyOptions } from './strictworker.ts';

function secret(): Promise<CryptoKey> {
  const raw = crypto.getRandomValues(new Uint8Array(32));
  return crypto.subtle.importKey('raw', raw, 'HKDF', false, ['deriveBits', 'deriveKey']);
}

/** What a connection was told, in order. */
function sink() {
  const told: unknown[][] = [];
  return {
    told,
    setOwnIndex: (index: number) => void told.push(['own', index]),
    set: (identity: string, index: number, key: CryptoKey) => void told.push([identity, index, key]),
  };
}

test('the provider has the options that the strict worker demands', () => {
  const provider = new CallKeys();
  const { sharedKey, ratchetWindowSize, failureTolerance, keyringSize } = provider.getOptions();
  assert.deepEqual({ sharedKey, ratchetWindowSize, failureTolerance, keyringSize }, keyOptions);
});

test('the provider posts a key under its identity and index', async () => {
  const provider = new CallKeys();
  const posted: unknown[] = [];
  provider.on(KeyProviderEvent.SetKey, (info) => posted.push(info));
  const key = await secret();
  provider.set('room', 5, key);
  assert.deepEqual(posted, [{ key, participantIdentity: 'room', keyIndex: 5 }]);
});

test('a new connection gets the current keys and nothing else', async () => {
  const ring = new KeyRing('me');
  const [a, b, c, d] = [await secret(), await secret(), await secret(), await secret()];
  const first = sink();
  ring.attach(first);
  ring.send(1, a);
  ring.receive('room', 1, b);
  ring.receive('room', 2, c);
  await ring.retire('room', 1);
  ring.send(2, d);
  ring.detach();
  assert.deepEqual(first.told.slice(0, 4), [['own', 1], ['me', 1, a], ['room', 1, b], ['room', 2, c]]);
  const second = sink();
  ring.attach(second);
  assert.deepEqual(second.told, [['room', 2, c], ['own', 2], ['me', 2, d]]);
});

test('a retired slot is overwritten with a key that is none of the session', async () => {
  const ring = new KeyRing('me');
  const s = sink();
  ring.attach(s);
  const key = await secret();
  ring.receive('room', 7, key);
  await ring.retire('room', 7);
  const [identity, index, junk] = s.told.at(-1)!;
  assert.deepEqual([identity, index], ['room', 7]);
  assert.notEqual(junk, key);
  assert.equal((junk as CryptoKey).extractable, false);
  const before = s.told.length;
  await ring.retire('room', 7);
  assert.equal(s.told.length, before, 'once');
});

test('a slot that has a new key meanwhile keeps it', async () => {
  const ring = new KeyRing('me');
  const s = sink();
  ring.attach(s);
  ring.receive('room', 0, await secret());
  const retiring = ring.retire('room', 0);
  const fresh = await secret();
  ring.receive('room', 0, fresh);
  await retiring;
  assert.equal(s.told.at(-1)![2], fresh);
});

test('sending stops with a key that nobody knows', async () => {
  const ring = new KeyRing('me');
  const s = sink();
  ring.attach(s);
  const key = await secret();
  ring.send(4, key);
  assert.equal(ring.canSend, true);
  await ring.stopSending();
  assert.equal(ring.canSend, false);
  assert.deepEqual(s.told.at(-1)!.slice(0, 2), ['me', 4]);
  assert.notEqual(s.told.at(-1)![2], key);
  const later = sink();
  ring.attach(later);
  assert.deepEqual(later.told, []);
});

test('an own key is never one to receive with', async () => {
  const key = await secret();
  assert.throws(() => new KeyRing('me').receive('me', 1, key));
});
