// Messages that cannot be judged yet: the relay keeps no order between senders, and a newcomer learns keys only from
// reveals. Bounded, since nothing in here is known to be authentic; the oldest are dropped first.

import { equal } from './bytes.ts';
import type { Parsed } from './wire.ts';

const maxMessages = 64;
const maxBytes = 256 * 1024;

export class Kept {
  #messages: Parsed[] = [];
  #bytes = 0;

  add(message: Parsed): void {
    if (this.#messages.some((m) => equal(m.raw, message.raw))) return;
    this.#messages.push(message);
    this.#bytes += message.raw.length;
    while (this.#messages.length > maxMessages || this.#bytes > maxBytes) {
      this.#bytes -= this.#messages.shift()!.raw.length;
    }
  }

  /** Empties the list, for judging everything in it again. */
  takeAll(): Parsed[] {
    const all = this.#messages;
    this.#messages = [];
    this.#bytes = 0;
    return all;
  }
}
