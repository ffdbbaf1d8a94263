// A member of a session, as a page is one: never the sequencer. A state machine over bytes, the port of
// daemon/e2ee/agreement, whose package comment is the specification: rounds, transcript, keys, alive, removal,
// comparison. It opens no socket and reads no clock: time comes in as `now`, milliseconds of a monotonic clock
// (performance.now()), messages as bytes, and everything that has to be done goes out as a list of effects.
//
// WebCrypto is asynchronous, so every call is queued: calls take effect in the order in which they were made, and each
// returns its own effects. Carry out one call's effects before those of the next.
//
//   newcomer ──propose listing D──▶ round ──all commits, reveals, checks──▶ complete ──alive of S──▶ in force
//      ▲                              │ 30 s, or a newer proposal                                      │
//      └──────────────────────────────┘                      round (the old T stays in force) ◀──propose┘
//   any ──a wrong value in a validly signed message──▶ failed        any ──end of S, removed, left──▶ ended

import {
  Fault,
  isFailure,
  reasonOf,
  reasons,
  type Effect,
  type Epoch,
  type MemberConfig,
  type Participant,
  type Reason,
} from './api.ts';
import { equal, toHex, type Bytes } from './bytes.ts';
import { participants } from './compared.ts';
import { documentHash, type Endpoint, type Role } from './document.ts';
import { commitment, comparisonOf, firstTranscript, proposalHash } from './formulas.ts';
import { Kept } from './kept.ts';
import { Keyring } from './keyring.ts';
import { Lease } from './lease.ts';
import { encodeProof } from './proof.ts';
import { admitsHold, documentOf, findPeer, Round, type Peer, type Transcript } from './round.ts';
import { Statements } from './statements.ts';
import { systemRandom, verifySignature, type Random } from './suite.ts';
import * as wire from './wire.ts';

/** A member forgets an unfinished round after this. */
const roundMs = 30_000;
/** Failed rounds are guesses: this many within this time end the session. */
const maxGuesses = 3;
const guessWindowMs = 600_000;
const maxChallenges = 8;

/** A call that makes no sense now; nothing happened. */
export class OutOfPlaceError extends Error {
  override name = 'OutOfPlaceError';
}

/** Whether a message was judged (used or dropped), or has to wait for others. */
type Verdict = 'judged' | 'later';

export class Member {
  readonly endpoint: Endpoint;
  readonly #config: MemberConfig;
  readonly #random: Random;
  readonly #writer: wire.Writer;
  readonly #keyring: Keyring;
  readonly #statements: Statements;
  readonly #kept = new Kept();
  #queue: Promise<unknown> = Promise.resolve();
  #out: Effect[] = [];
  #now = -Infinity;
  #over = false;
  /** Since when there is no connection to the relay. */
  #offline: number | undefined;
  #sending: { allowed: boolean; reason: Reason } = { allowed: false, reason: 'no_epoch' };

  /** The transcript in force. */
  #current: Transcript | undefined;
  #epoch: Epoch | undefined;
  /** The round that is running, or complete and waiting for its alive. */
  #round: Round | undefined;
  /** Own commit and reveal of the T in force. */
  #settled: readonly Bytes[] = [];
  /** A member of #current is being removed: nothing is sent or received until the next T. */
  #changing = false;
  /** The highest e of a proposal taken. */
  #taken = 0;
  #lease: Lease | undefined;
  /** The highest n of an alive. */
  #alive = -1;
  #guesses: number[] = [];
  /** Hex of the D's that were removed: they never come back. */
  readonly #removed = new Set<string>();
  readonly #challenges = new Map<string, { readonly from: Bytes; readonly dch: Bytes }>();

  /** `random` is the source of nonces and secrets; the shared vectors fix it. */
  constructor(endpoint: Endpoint, config: MemberConfig, random: Random = systemRandom) {
    if (endpoint.document.role === 'device') throw new RangeError('the room is not a member of this kind');
    this.endpoint = endpoint;
    this.#config = config;
    this.#random = random;
    this.#writer = new wire.Writer(endpoint.document.sid, endpoint.D, (m) => endpoint.keys.sign(m));
    this.#keyring = new Keyring(endpoint, this.#writer, random);
    this.#statements = new Statements(this.#writer);
  }

  /** Document hash: this end's name in every message, and what it knocks with. */
  get D(): Bytes {
    return this.endpoint.D;
  }

  /** LiveKit identity. */
  get eid(): string {
    return this.endpoint.eid;
  }

  /** The epoch in force, with who has been compared by now. */
  get epoch(): Epoch | undefined {
    return this.#epoch && this.#current && { ...this.#epoch, members: this.#participants(this.#current) };
  }

  /** Takes one message of the relay. What is not for this end, is junk or comes twice has no effect. */
  handle(now: number, message: Uint8Array): Promise<Effect[]> {
    const bytes = message.slice();
    return this.#run(now, async () => {
      const parsed = wire.tryParse(bytes);
      if (parsed && equal(parsed.sid, this.endpoint.document.sid)) await this.#take(parsed);
    });
  }

  /** Lets time pass. Call it at nextDeadline, or at any time. */
  tick(now: number): Promise<Effect[]> {
    return this.#run(now, () => Promise.resolve());
  }

  /** When tick has something to do; undefined when nothing waits for time. */
  nextDeadline(): number | undefined {
    if (this.#over) return undefined;
    const times = [this.#offline === undefined && this.#round ? this.#round.takenAt + roundMs : undefined];
    if (this.#current && !this.#changing) times.push(this.#keyring.deadline);
    if (this.#sending.allowed) times.push(this.#lease?.until);
    const known = times.filter((t) => t !== undefined);
    return known.length > 0 ? Math.min(...known) : undefined;
  }

  /** Tells that the connection to the relay is there or lost. What this end cannot hear is nobody's silence. */
  online(now: number, up: boolean): Promise<Effect[]> {
    return this.#run(now, async () => {
      if (!up) {
        this.#offline ??= this.#now;
      } else if (this.#offline !== undefined) {
        if (this.#round) this.#round.takenAt += this.#now - this.#offline;
        this.#offline = undefined;
      }
    });
  }

  /** This end's current messages, for after a reconnection or a resync. Repetitions do no harm. */
  resend(): readonly Bytes[] {
    if (this.#over) return [];
    const { current } = this.#statements;
    return [...this.#settled, ...this.#keyring.current, ...current, ...(this.#round?.own ?? [])];
  }

  /** A therapist lets D in, or says so again. */
  admit(now: number, D: Bytes, role: Role): Promise<Effect[]> {
    return this.#run(now, async () => {
      const t = this.#requireTherapist();
      const out = role === 'device' || this.#removed.has(toHex(D)) || !this.#statements.mayAdmit;
      if (out) throw new OutOfPlaceError('admit');
      if (!findPeer(t, D)) this.#send(await this.#statements.admit(t.T, D.slice(), role));
    });
  }

  /** A therapist takes D out of the session, or withdraws its admission. */
  remove(now: number, D: Bytes): Promise<Effect[]> {
    return this.#run(now, async () => {
      const t = this.#requireTherapist();
      const role = findPeer(t, D)?.document.role ?? this.#statements.admittedAs(D);
      if (!role || role === 'device' || equal(D, this.D)) throw new OutOfPlaceError('remove');
      this.#send(await this.#statements.remove(t.T, D, role));
      this.#remove(D);
    });
  }

  /** A patient answers askGuest. */
  agreeGuest(now: number, D: Bytes, yes: boolean): Promise<Effect[]> {
    return this.#run(now, async () => {
      const message = await this.#statements.answerGuest(D, yes);
      if (!message) throw new OutOfPlaceError('agreeGuest');
      this.#send(message);
    });
  }

  /** A therapist asks for a fresh round, to compare. */
  check(now: number): Promise<Effect[]> {
    return this.#run(now, async () => this.#send(await this.#statements.check(this.#requireTherapist().T)));
  }

  /** People compared the code of T and it was the same. */
  markEqual(now: number, T: Bytes): Promise<Effect[]> {
    return this.#run(now, async () => {
      const t = this.#current;
      if (!t || !equal(t.T, T)) throw new OutOfPlaceError('markEqual: another transcript is in force');
      const others = t.peers.filter((p) => !equal(p.D, this.D));
      const { compared } = this.#statements;
      for (const p of others) this.#out.push(...compared.mark(p.D, undefined));
      this.#out.push(...compared.takeWords());
      if (this.endpoint.document.role !== 'therapist') return;
      for (const p of others) this.#send(await this.#statements.tellCompared(t.T, p.D));
    });
  }

  /** People compared and it was different: the session fails on both sides. */
  markDifferent(now: number): Promise<Effect[]> {
    return this.#run(now, () => Promise.reject(new Fault('different')));
  }

  /** Rotates this end's key under the same T, at 2^17 frames. The ten minutes are kept by tick. */
  rekey(now: number): Promise<Effect[]> {
    return this.#run(now, async () => {
      if (!this.#current || this.#changing) throw new OutOfPlaceError('rekey: no transcript is in force');
      this.#out.push(...(await this.#keyring.rotate(this.#now, this.#current)));
    });
  }

  /** Takes this end out. */
  leave(now: number): Promise<Effect[]> {
    return this.#run(now, async () => {
      if (this.#current || this.#round) {
        const prevT = this.#current?.T ?? (await firstTranscript(this.endpoint.document));
        this.#send(await this.#writer.admission('remove', prevT, this.D, this.endpoint.document.role));
      }
      this.#stop('left', { t: 'ended', reason: 'left' });
    });
  }

  #participants(t: Transcript): Participant[] {
    return participants(t, this.D, this.#statements.compared);
  }

  #run(now: number, call: () => Promise<void>): Promise<Effect[]> {
    const result = this.#queue.then(async () => {
      if (this.#over) return [];
      this.#now = Math.max(this.#now, now);
      this.#out = [];
      try {
        await call();
        await this.#passTime();
        await this.#update();
      } catch (err) {
        if (err instanceof OutOfPlaceError) throw err;
        await this.#fail(err instanceof Fault ? err : new Fault('internal'));
      }
      return this.#out;
    });
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #send(message: Bytes): void {
    this.#out.push({ t: 'send', message });
  }

  /** Destroys every key, says `last` and does nothing more. */
  #stop(reason: Reason, last: Effect): void {
    this.#over = true;
    this.#setSending(false, reason);
    this.#out.push(...this.#keyring.stop(), last);
    this.#kept.takeAll();
    this.#round = undefined;
  }

  /** Fails, and says so to the others unless it was they who said it. */
  async #fail(fault: Fault, tell = true): Promise<void> {
    if (this.#over) return;
    const { reason, from } = fault;
    try {
      if (tell) this.#send(await this.#writer.end(this.#current?.e ?? 0, reasons[reason]));
    } finally {
      this.#stop(reason, from ? { t: 'failed', reason, from } : { t: 'failed', reason });
    }
  }

  /** The last step of every call. */
  async #update(): Promise<void> {
    if (this.#over) return;
    const t = this.#changing ? undefined : this.#current;
    if (t) this.#out.push(...(await this.#keyring.update(this.#now, t)));
    const keyFrames = t ? this.#keyring.newReaders(t) : [];
    this.#refreshSending();
    this.#out.push(...keyFrames);
  }

  #refreshSending(): void {
    const reason = this.#whyNotSending();
    this.#setSending(reason === 'none', reason);
  }

  #setSending(allowed: boolean, reason: Reason): void {
    if (allowed === this.#sending.allowed && reason === this.#sending.reason) return;
    this.#sending = { allowed, reason };
    this.#out.push({ t: 'sending', allowed, reason });
  }

  #whyNotSending(): Reason {
    if (!this.#current) return 'no_epoch';
    if (this.#changing) return 'changing';
    if (!this.#lease?.fresh(this.#now)) return 'no_alive';
    return this.#keyring.someoneReads ? 'none' : 'nobody';
  }

  async #passTime(): Promise<void> {
    if (this.#over) return;
    const round = this.#offline === undefined ? this.#round : undefined;
    if (round && this.#now >= round.takenAt + roundMs) this.#abandonRound();
    if (this.#current && !this.#changing) this.#out.push(...(await this.#keyring.tick(this.#now, this.#current)));
  }

  /** Judges a message, and then those that waited for it. */
  async #take(message: wire.Parsed): Promise<void> {
    if ((await this.#judge(message)) === 'later') {
      this.#kept.add(message);
      return;
    }
    for (let again = true; again && !this.#over; ) {
      again = false;
      for (const m of this.#kept.takeAll()) {
        if (this.#over) return;
        if ((await this.#judge(m)) === 'later') this.#kept.add(m);
        else again = true;
      }
    }
  }

  #judge(m: wire.Parsed): Promise<Verdict> {
    switch (m.t) {
      case 'propose':
        return this.#onPropose(m);
      case 'commit':
        return this.#onCommit(m);
      case 'reveal':
        return this.#onReveal(m);
      case 'keys':
      case 'ready':
        return this.#onKeys(m);
      case 'alive':
        return this.#onAlive(m);
      case 'challenge':
        return this.#onChallenge(m);
      case 'end':
        return this.#onEnd(m);
      case 'remove':
        return this.#onRemove(m);
      case 'admit':
        return this.#onAdmit(m);
      case 'compared':
        return this.#onCompared(m);
      case 'check':
      case 'agree':
        // For the room alone.
        return Promise.resolve('judged');
    }
  }

  // --- rounds

  async #onPropose(m: wire.Propose): Promise<Verdict> {
    const t = this.#current;
    if (!t) {
      if (await this.#isForNewcomer(m)) await this.#startRound(m);
      return 'judged';
    }
    if (m.e <= this.#taken || !(await this.#signedBy(t.room, m.from, m))) return 'judged';
    if (wire.indexOf(m.members, m.from) < 0) throw new Fault('proposal', m.from);
    if (wire.indexOf(m.members, this.D) < 0) {
      this.#stop('removed', { t: 'ended', reason: 'removed' });
      return 'judged';
    }
    if (!equal(m.prevT, t.T)) {
      // S may have reached a T that this end is about to reach.
      if (this.#round) return 'later';
      throw new Fault('transcript', m.from);
    }
    // From before S heard of a removal: S will propose again without that member.
    if (m.members.some((D) => this.#removed.has(toHex(D)))) return 'judged';
    const known = (D: Bytes) => findPeer(t, D)?.document;
    if (!(await admitsHold(m, this.endpoint.document, t, known))) throw new Fault('admit', m.from);
    for (const p of t.peers) if (wire.indexOf(m.members, p.D) < 0) this.#remove(p.D);
    await this.#startRound(m);
    return 'judged';
  }

  /** What a newcomer can judge of a proposal before S has shown its document: its form, and that it lists this end. */
  async #isForNewcomer(m: wire.Propose): Promise<boolean> {
    if (wire.indexOf(m.members, this.D) < 0 || wire.indexOf(m.members, m.from) < 0) return false;
    if (m.admits.find((a) => equal(a.D, this.D))?.role !== this.endpoint.document.role) return false;
    const first = equal(m.prevT, await firstTranscript(this.endpoint.document));
    if (first && m.members.length !== 2) return false;
    const r = this.#round;
    return !r || !equal(r.propose.from, m.from) || m.e > r.e;
  }

  async #startRound(propose: wire.Propose): Promise<void> {
    if (this.#round) this.#abandonRound();
    const P = await proposalHash(propose.signed);
    const round = new Round(propose, P, this.#now, this.#random());
    this.#round = round;
    this.#taken = propose.e;
    const c = await commitment(P, this.D, round.nonce);
    const message = await this.#writer.commit(round.e, P, c);
    round.own.push(message);
    this.#send(message);
    await round.addCommit(wire.parse(message) as wire.Commit);
  }

  /** Forgets the running round. One whose outcome could be known here was a guess. */
  #abandonRound(): void {
    const round = this.#round!;
    this.#round = undefined;
    if (!round.isGuess) return;
    this.#guesses = this.#guesses.filter((at) => at > this.#now - guessWindowMs);
    this.#guesses.push(this.#now);
    this.#out.push({ t: 'roundFailed', number: round.e, count: this.#guesses.length });
    if (this.#guesses.length >= maxGuesses) throw new Fault('guesses');
  }

  /** Whether a message of epoch e that fits nothing here may still fit later. */
  #mayFitLater(e: number): Verdict {
    return e >= (this.#round?.e ?? (this.#current?.e ?? -1) + 1) ? 'later' : 'judged';
  }

  async #onCommit(m: wire.Commit): Promise<Verdict> {
    const round = this.#round;
    if (!round || !equal(m.P, round.P)) return this.#mayFitLater(m.e);
    if (!round.lists(m.from) || m.e !== round.e || equal(m.from, this.D)) return 'judged';
    const key = this.#keyOf(m.from);
    if (key && !(await verifySignature(key, m.sig, m.signed))) return 'judged';
    await round.addCommit(m);
    if (round.K && round.revealedAt === undefined) await this.#reveal(round, round.K);
    return 'judged';
  }

  async #reveal(round: Round, K: Bytes): Promise<void> {
    const challenge = this.#challenges.get(toHex(round.propose.from))?.dch;
    const request = { D: this.D, K };
    const proof = await this.#config.prove(challenge ? { ...request, challenge } : request);
    round.revealedAt = this.#now;
    const { doc } = this.endpoint;
    const message = await this.#writer.reveal(round.e, round.P, K, doc, encodeProof(proof), round.nonce);
    round.own.push(message);
    this.#send(message);
    await round.addReveal(this.endpoint.document, wire.parse(message) as wire.Reveal, this.endpoint.document);
    await this.#finishRound(round);
  }

  async #onReveal(m: wire.Reveal): Promise<Verdict> {
    const round = this.#round;
    if (!round || !equal(m.P, round.P)) return this.#mayFitLater(m.e);
    if (!round.lists(m.from) || m.e !== round.e || equal(m.from, this.D)) return 'judged';
    if (!round.K) return 'later';
    if (round.transcript || !equal(await documentHash(m.doc), m.from)) return 'judged';
    // From here on the document is the sender's own: what does not fit is the sender's fault.
    const document = documentOf(m);
    if (!document) throw new Fault('document', m.from);
    if (!(await verifySignature(document.sigPublic, m.sig, m.signed))) return 'judged';
    await round.addReveal(this.endpoint.document, m, document);
    await this.#finishRound(round);
    return 'judged';
  }

  async #finishRound(round: Round): Promise<void> {
    if (!round.complete || round.transcript) return;
    round.transcript = await round.judge(this.endpoint.document, this.D, this.#current, this.#config);
  }

  /** The signing key of a D that has shown its document, in the T in force or in the running round. */
  #keyOf(D: Bytes): Bytes | undefined {
    return findPeer(this.#current, D)?.document.sigPublic ?? this.#round?.signerOf(D);
  }

  #signedBy(peer: Peer | undefined, from: Bytes, m: { readonly sig: Bytes; readonly signed: Bytes }): Promise<boolean> {
    if (!peer || !equal(peer.D, from)) return Promise.resolve(false);
    return verifySignature(peer.document.sigPublic, m.sig, m.signed);
  }

  // --- the T in force

  async #onAlive(m: wire.Alive): Promise<Verdict> {
    const round = this.#round;
    if (round && m.e === round.e) {
      const next = round.transcript;
      if (!next) return 'later';
      if (m.n <= this.#alive || !(await this.#signedBy(next.room, m.from, m))) return 'judged';
      if (!equal(m.T, next.T)) throw new Fault('transcript', m.from);
      this.#alive = m.n;
      await this.#enterForce(next, m);
      return 'judged';
    }
    const t = await this.#inForce(m);
    if (typeof t === 'string') return t;
    if (m.n <= this.#alive || !equal(m.from, t.room.D)) return 'judged';
    this.#alive = m.n;
    this.#lease!.renew(m.time, this.#now);
    return 'judged';
  }

  /** The T in force if m, signed by a member, is of it; else what becomes of m. */
  async #inForce(m: wire.Alive | wire.Keys | wire.Ready): Promise<Transcript | Verdict> {
    const t = this.#current;
    if (!t || m.e > t.e) return this.#mayFitLater(m.e);
    if (m.e < t.e || !(await this.#signedBy(findPeer(t, m.from), m.from, m))) return 'judged';
    // The same epoch, signed by a member, with another history.
    if (!equal(m.T, t.T)) throw new Fault('transcript', m.from);
    return this.#changing ? 'judged' : t;
  }

  async #enterForce(t: Transcript, first: wire.Alive): Promise<void> {
    this.#current = t;
    this.#settled = this.#round!.own;
    this.#round = undefined;
    this.#changing = false;
    this.#lease = new Lease(t.revealedAt, first.time, this.#now);
    const comparison = await comparisonOf(t.T);
    this.#epoch = { number: t.e, T: t.T, members: this.#participants(t), ...comparison, check: t.check };
    this.#out.push({ t: 'epoch', epoch: this.#epoch });
    this.#out.push(...(await this.#keyring.epoch(this.#now, t)));
    for (const message of await this.#statements.epoch(t)) this.#send(message);
  }

  async #onKeys(m: wire.Keys | wire.Ready): Promise<Verdict> {
    if (equal(m.from, this.D)) return 'judged';
    const t = await this.#inForce(m);
    if (typeof t === 'string') return t;
    if (m.t === 'keys') this.#out.push(...(await this.#keyring.takeKeys(this.#now, t, m)));
    else this.#keyring.takeReady(t, m);
    return 'judged';
  }

  async #onChallenge(m: wire.Challenge): Promise<Verdict> {
    if (!equal(m.D, this.D)) return 'judged';
    const key = this.#keyOf(m.from);
    if (key && !(await verifySignature(key, m.sig, m.signed))) return 'judged';
    // Before S is known the challenge is only believed of whoever proposes the round, and S judges the proof.
    const id = toHex(m.from);
    if (this.#challenges.size < maxChallenges || this.#challenges.has(id)) {
      this.#challenges.set(id, { from: m.from, dch: m.dch });
    }
    return 'judged';
  }

  async #onEnd(m: wire.End): Promise<Verdict> {
    const reason = reasonOf(m.reason);
    if (!reason || equal(m.from, this.D) || (reason !== 'ended' && !isFailure(reason))) return 'judged';
    const key = this.#keyOf(m.from);
    if (!key) return this.#round?.lists(m.from) ? 'later' : 'judged';
    if (!(await verifySignature(key, m.sig, m.signed))) return 'judged';
    const fromRoom = [this.#current?.room.D, this.#round?.propose.from].some((D) => D && equal(D, m.from));
    if (isFailure(reason)) await this.#fail(new Fault(reason, m.from), false);
    else if (fromRoom) this.#stop(reason, { t: 'ended', reason });
    return 'judged';
  }

  // --- leaving and letting in

  async #onRemove(m: wire.Admission): Promise<Verdict> {
    const t = this.#current;
    const room = t?.room.D ?? this.#round?.propose.from;
    const key = this.#keyOf(m.signer);
    if (!key) return !t || this.#round?.lists(m.signer) ? 'later' : 'judged';
    if (equal(m.signer, this.D) || !(await verifySignature(key, m.sig, m.signed))) return 'judged';
    if (!equal(m.D, m.signer)) {
      const signer = findPeer(t, m.signer);
      if (!t || !signer || (!equal(m.prevT, t.T) && !equal(m.prevT, t.prevT))) return this.#round ? 'later' : 'judged';
      const fromRoom = equal(m.signer, t.room.D);
      if (!fromRoom && (signer.document.role !== 'therapist' || m.local)) return 'judged';
    }
    const target = findPeer(t, m.D);
    if (room && equal(m.D, room)) return 'judged';
    if (this.#removed.has(toHex(m.D)) || (target && target.document.role !== m.role)) return 'judged';
    if (equal(m.D, this.D)) this.#stop('removed', { t: 'ended', reason: 'removed' });
    else this.#remove(m.D);
    return 'judged';
  }

  /** D is out, from this moment on: keys that it holds are not used any more, for sending or receiving. */
  #remove(D: Bytes): void {
    const id = toHex(D);
    this.#removed.add(id);
    this.#statements.forget(D);
    if (findPeer(this.#current, D) && !this.#changing) {
      this.#changing = true;
      // Sending stops first.
      this.#setSending(false, 'changing');
      this.#out.push(...this.#keyring.stop());
    }
    if (this.#round?.lists(D)) this.#abandonRound();
  }

  #requireTherapist(): Transcript {
    if (this.endpoint.document.role !== 'therapist' || !this.#current) {
      throw new OutOfPlaceError('only a therapist in a session in force may do this');
    }
    return this.#current;
  }

  /** On a patient's page: a therapist's admission of a guest is a question to the patient. */
  async #onAdmit(m: wire.Admission): Promise<Verdict> {
    if (this.endpoint.document.role !== 'patient' || m.role !== 'guest') return 'judged';
    const t = this.#current;
    if (!t || !equal(m.prevT, t.T)) return this.#round ? 'later' : 'judged';
    const signer = findPeer(t, m.signer);
    const asks = signer?.document.role === 'therapist' && !findPeer(t, m.D) && !this.#removed.has(toHex(m.D));
    if (!asks || m.local || !(await this.#signedBy(signer, m.signer, m))) return 'judged';
    this.#out.push(...(await this.#statements.askGuest(m)));
    return 'judged';
  }

  // --- comparing

  async #onCompared(m: wire.Compared): Promise<Verdict> {
    const t = this.#current;
    if (!t || !equal(m.T, t.T)) return this.#round ? 'later' : 'judged';
    const signer = findPeer(t, m.signer);
    if (signer?.document.role !== 'therapist' || !findPeer(t, m.D)) return 'judged';
    const about = equal(m.D, this.D) || equal(m.D, m.signer) || equal(m.signer, this.D);
    if (about || !(await this.#signedBy(signer, m.signer, m))) return 'judged';
    this.#statements.compared.say(m);
    this.#out.push(...this.#statements.compared.takeWords());
    return 'judged';
  }
}
