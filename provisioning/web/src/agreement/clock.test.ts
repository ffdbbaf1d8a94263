import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sessionClock } from './clock.ts';

test('time goes on during sleep and never goes back', () => {
  let monotonic = 5;
  let wall = 1_700_000_000_000;
  const clock = sessionClock(() => monotonic, () => wall);
  assert.equal(clock(), 0);
  monotonic += 1000;
  wall += 1000;
  assert.equal(clock(), 1000);
  // Asleep for an hour: only the wall clock noticed.
  wall += 3_600_000;
  assert.equal(clock(), 3_601_000);
  // The wall clock is set back: time goes on by the other.
  monotonic += 500;
  wall -= 10_000_000;
  assert.equal(clock(), 3_601_500);
});
