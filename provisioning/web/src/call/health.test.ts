import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Health } from './health.ts';

test('the line is short after 2 s, lost after 5, long after 30, and good at once', () => {
  const health = new Health(0);
  const lines = [0, 1999, 2000, 4999, 5000, 29_999, 30_000].map((now) => health.line(now));
  assert.deepEqual(lines, ['good', 'good', 'short', 'short', 'lost', 'lost', 'long']);
  health.good(40_000);
  assert.equal(health.line(40_000), 'good');
});
