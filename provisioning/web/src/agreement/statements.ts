// What people decide outside rounds, as one member keeps it: a therapist's admissions, removals and checks, a
// patient's answers about guests, and who was compared. Own statements are kept for sending again. Methods return the
// message to send, or the effects; member.ts judges signatures and who may say what.

import type { Effect } from './api.ts';
import { equal, toHex, type Bytes } from './bytes.ts';
import { ComparedSet } from './compared.ts';
import type { Role } from './document.ts';
import { admissionHash } from './formulas.ts';
import { findPeer, type Transcript } from './round.ts';
import type { Admission, Writer } from './wire.ts';

/** Bounds on admissions and guests that wait, and on own statements that are sent again. */
const maxWaiting = 16;
const maxSaid = 25;

interface Admitting {
  readonly D: Bytes;
  readonly role: Role;
  readonly message: Bytes;
}

interface Guest {
  /** Hash of the therapist's admission. */
  readonly admit: Bytes;
  readonly answer: boolean | undefined;
}

export class Statements {
  readonly compared = new ComparedSet();
  readonly #writer: Writer;
  /** Own statements of the T in force. */
  #said: Bytes[] = [];
  /** This therapist's admissions that are not members yet, by hex D. */
  readonly #admitting = new Map<string, Admitting>();
  /** Guests that a therapist wants to let in, by hex D. */
  readonly #guests = new Map<string, Guest>();

  constructor(writer: Writer) {
    this.#writer = writer;
  }

  /** Own statements that still count, for a member who may have missed them. */
  get current(): Bytes[] {
    return [...this.#said, ...[...this.#admitting.values()].map((a) => a.message)];
  }

  /** Whether one more admission may wait. */
  get mayAdmit(): boolean {
    return this.#admitting.size < maxWaiting;
  }

  /** The role under which this therapist has admitted D, who is no member yet. */
  admittedAs(D: Bytes): Role | undefined {
    return this.#admitting.get(toHex(D))?.role;
  }

  async admit(T: Bytes, D: Bytes, role: Role): Promise<Bytes> {
    const message = await this.#writer.admission('admit', T, D, role);
    this.#admitting.set(toHex(D), { D, role, message });
    return message;
  }

  async remove(T: Bytes, D: Bytes, role: Role): Promise<Bytes> {
    return this.#say(await this.#writer.admission('remove', T, D, role));
  }

  async check(T: Bytes): Promise<Bytes> {
    return this.#say(await this.#writer.check(T));
  }

  async tellCompared(T: Bytes, D: Bytes): Promise<Bytes> {
    return this.#say(await this.#writer.compared(T, D));
  }

  /** D is out for good. */
  forget(D: Bytes): void {
    this.#admitting.delete(toHex(D));
    this.#guests.delete(toHex(D));
  }

  /** A new T is in force. An admission holds for one prevT: what still waits is said again for the new one. */
  async epoch(t: Transcript): Promise<Bytes[]> {
    this.#said = [];
    this.compared.newEpoch();
    const out: Bytes[] = [];
    for (const [id, a] of [...this.#admitting]) {
      if (findPeer(t, a.D)) this.#admitting.delete(id);
      else out.push(await this.admit(t.T, a.D, a.role));
    }
    return out;
  }

  /** On a patient's page: a therapist wants to let a guest in. The patient is asked once. */
  async askGuest(m: Admission): Promise<Effect[]> {
    const id = toHex(m.D);
    const admit = await admissionHash(m.signed);
    const before = this.#guests.get(id);
    if (before ? equal(before.admit, admit) : this.#guests.size >= maxWaiting) return [];
    this.#guests.set(id, { admit, answer: before?.answer });
    if (!before) return [{ t: 'askGuest', D: m.D }];
    // The same guest under a new T: the answer stands and is said again.
    if (before.answer === undefined) return [];
    return [{ t: 'send', message: this.#say(await this.#writer.agree(admit, before.answer)) }];
  }

  /** The patient's answer; undefined when nobody asked. */
  async answerGuest(D: Bytes, yes: boolean): Promise<Bytes | undefined> {
    const guest = this.#guests.get(toHex(D));
    if (!guest) return undefined;
    this.#guests.set(toHex(D), { ...guest, answer: yes });
    return this.#say(await this.#writer.agree(guest.admit, yes));
  }

  #say(message: Bytes): Bytes {
    if (this.#said.length < maxSaid) this.#said.push(message);
    return message;
  }
}
