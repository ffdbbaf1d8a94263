// The lease that S's alive messages give: nobody sends without a fresh one. The age of the newest alive is bounded
// without trusting the relay: the first alive of a T cannot have been made before this end sent its reveal of the
// round, at local time a, so age(now) ≤ (now − a) − (newest − first), in S's time. A relay that hoards alives and
// hands them out later gains nothing.

/** An alive older than this stops sending. */
const leaseMs = 15_000;

export class Lease {
  #anchor: number;
  readonly #first: number;
  #newest: number;

  /** The first alive of a T: `time` is S's clock, `revealedAt` and `now` ours. */
  constructor(revealedAt: number, time: number, now: number) {
    this.#anchor = Math.min(revealedAt, now);
    this.#first = time;
    this.#newest = time;
  }

  /** A later alive. One whose time goes back is none. */
  renew(time: number, now: number): void {
    if (time < this.#newest) return;
    this.#newest = time;
    // Below 0 the clocks disagree: S's runs faster than ours. Its head start must not add up to a longer lease.
    if (this.#age(now) < 0) this.#anchor = now - (this.#newest - this.#first);
  }

  #age(now: number): number {
    return now - this.#anchor - (this.#newest - this.#first);
  }

  fresh(now: number): boolean {
    return this.#age(now) <= leaseMs;
  }

  /** When it runs out. */
  get until(): number {
    return this.#anchor + (this.#newest - this.#first) + leaseMs + 1;
  }
}
