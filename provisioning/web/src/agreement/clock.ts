// The clock of a member. performance.now() stands still in many browsers while the device sleeps, and a lease must not
// be believed for the time that was slept; Date.now() goes on but may be set back. This one advances by the larger of
// both steps: a leap only ends a lease early, which stops sending until the room is heard again.

/** Returns a clock in milliseconds that never goes back and does not stand still during sleep. */
export function sessionClock(
  monotonic: () => number = () => performance.now(),
  wall: () => number = () => Date.now(),
): () => number {
  let now = 0;
  let lastMonotonic = monotonic();
  let lastWall = wall();
  return () => {
    const m = monotonic();
    const w = wall();
    now += Math.max(0, m - lastMonotonic, w - lastWall);
    lastMonotonic = m;
    lastWall = w;
    return now;
  };
}
