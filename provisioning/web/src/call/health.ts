// How long nothing has come from the room. Words about the line change at 2, 5 and 30 s, and after 2 s the last picture
// is not shown any more: a frozen face frightens, and it would lie about "live" (journeys R13).

import type { Line } from './state.ts';

const shortAfter = 2000;
const lostAfter = 5000;
const longAfter = 30_000;

export class Health {
  #since: number;

  constructor(now: number) {
    this.#since = now;
  }

  /** Something arrived, or nothing is expected. */
  good(now: number): void {
    this.#since = now;
  }

  line(now: number): Line {
    const silent = now - this.#since;
    if (silent >= longAfter) return 'long';
    if (silent >= lostAfter) return 'lost';
    return silent >= shortAfter ? 'short' : 'good';
  }
}
