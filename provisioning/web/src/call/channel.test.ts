import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Bytes } from '../agreement/bytes.ts';
import { deriveDataKey, type DataContext } from '../data/seal.ts';
import { Channel } from './channel.ts';

const random = (n: number): Bytes => crypto.getRandomValues(new Uint8Array(n));

async function context(gen: number): Promise<DataContext> {
  return { key: await deriveDataKey(random(32)), gen, T: random(32), from: random(32) };
}

test('opens what a member sealed, by identity and generation, once', async () => {
  const c = await context(3);
  const [here, there] = [new Channel(), new Channel()];
  assert.equal(await there.seal({ t: 'keyframe' }), undefined, 'no key, nothing sealed');
  there.send(c);
  here.receive('room', c);
  const packet = (await there.seal({ t: 'keyframe' }))!;
  await assert.rejects(here.open('guest', packet), 'under another identity');
  assert.deepEqual(await here.open('room', packet), { t: 'keyframe' });
  await assert.rejects(here.open('room', packet), 'a second time');
  const later = (await there.seal({ t: 'keyframe' }))!;
  here.retire('room', 3);
  await assert.rejects(here.open('room', later), 'a retired generation');
});
