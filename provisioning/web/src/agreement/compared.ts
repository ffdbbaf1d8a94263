// V: the D's whose code was compared, on this end or by a therapist who is in V. A member who comes back with another
// D is a newcomer.

import type { Effect, Participant } from './api.ts';
import { equal, toHex, type Bytes } from './bytes.ts';
import { identityOf } from './document.ts';
import type { Transcript } from './round.ts';
import { maxMembers, type Compared } from './wire.ts';

const maxWords = maxMembers * maxMembers;

export class ComparedSet {
  /** Hex D; the therapist whose word it is, undefined for this end's own. */
  readonly #members = new Map<string, Bytes | undefined>();
  /** Therapists' words of the T in force. */
  #words: Compared[] = [];

  has(D: Bytes): boolean {
    return this.#members.has(toHex(D));
  }

  /** The therapist whose word it is; undefined when D was compared here, or not at all. */
  by(D: Bytes): Bytes | undefined {
    return this.#members.get(toHex(D));
  }

  /** A new T is in force: words hold within one. */
  newEpoch(): void {
    this.#words = [];
  }

  /** Puts D into V. This end's own comparison is worth more than somebody's word. */
  mark(D: Bytes, by: Bytes | undefined): Effect[] {
    const before = this.#members.get(toHex(D));
    if (this.has(D) && (before === undefined || by !== undefined)) return [];
    this.#members.set(toHex(D), by);
    return [by ? { t: 'compared', D, by } : { t: 'compared', D }];
  }

  /** Keeps a therapist's word, which counts as soon as the therapist is in V. */
  say(word: Compared): void {
    if (this.#words.length < maxWords) this.#words.push(word);
  }

  /** Takes over what therapists in V have said; one word may make another count. */
  takeWords(): Effect[] {
    const out: Effect[] = [];
    for (let again = true; again; ) {
      again = false;
      for (const w of this.#words) {
        if (!this.has(w.signer) || this.has(w.D)) continue;
        out.push(...this.mark(w.D, w.signer));
        again = true;
      }
    }
    return out;
  }
}

/** Everybody in a transcript, in order of D, as this end sees them. */
export function participants(t: Transcript, self: Bytes, compared: ComparedSet): Participant[] {
  return t.peers.map((p) => {
    const by = compared.by(p.D);
    return {
      D: p.D,
      eid: identityOf(p.D),
      role: p.document.role,
      name: p.document.name,
      level: p.level,
      verified: p.verified,
      self: equal(p.D, self),
      compared: compared.has(p.D),
      ...(by ? { comparedBy: by } : {}),
    };
  });
}
