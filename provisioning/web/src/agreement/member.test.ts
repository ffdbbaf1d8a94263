import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AgreedKey } from './api.ts';
import { concat, equal, toHex, utf8, type Bytes } from './bytes.ts';
import { newEndpoint } from './document.ts';
import { pictureNames } from './formulas.ts';
import { Member, OutOfPlaceError } from './member.ts';
import { Line, Page, Room, configFor, hexT, session } from './testing.ts';
import { Writer, type Parsed } from './wire.ts';

async function frameKey(key: AgreedKey): Promise<string> {
  const params = { name: 'HKDF', hash: 'SHA-256', salt: utf8('LKFrameEncryptionKey'), info: new Uint8Array(128) };
  return toHex(new Uint8Array(await crypto.subtle.deriveBits(params, key.frames, 128)));
}

/** A page's newest receive key of somebody equals that one's newest send key. */
async function assertHears(page: Page, from: Page): Promise<void> {
  const sent = from.last('sendKey')!.key;
  const received = page.of('recvKey').filter((e) => equal(e.D, from.member.D)).at(-1)!.key;
  assert.equal(received.gen, sent.gen);
  assert.equal(await frameKey(received), await frameKey(sent));
}

function assertNothingStarted(page: Page): void {
  assert.equal(page.of('epoch').length, 0);
  assert.equal(page.of('sendKey').length, 0);
  assert.ok(!page.of('sending').some((e) => e.allowed));
}

async function three(): Promise<{ line: Line; therapist: Page; patient: Page }> {
  const line = await Line.make();
  const therapist = await line.begin();
  const patient = await line.join('patient', 'Maria');
  const { D } = patient.member;
  await line.carry(therapist, therapist.member.admit(line.now, D, 'patient'));
  const admit = line.sent.findLast((m) => m.t === 'admit')!.raw;
  await line.room.start([therapist.member.D, D], [admit]);
  await line.flush();
  return { line, therapist, patient };
}

test('two parties agree on transcript, code and keys', async () => {
  const line = await Line.make();
  const page = await line.begin();
  assert.equal(hexT(page), toHex(line.room.current!.T));
  const { epoch } = page.last('epoch')!;
  assert.match(epoch.code, /^[0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4}$/);
  assert.match(epoch.digits, /^\d{4} \d{4}$/);
  assert.equal(new Set(epoch.pictures.map((i) => pictureNames[i])).size, 4);
  assert.deepEqual(
    epoch.members.map((m) => [m.role, m.name, m.level, m.verified, m.self]).sort(),
    [['device', 'Room 1', 3, 3, false], ['therapist', 'Dr Lee', 1, 1, true]],
  );
  assert.deepEqual(page.last('sending'), { t: 'sending', allowed: true, reason: 'none' });
  assert.equal(page.last('sendKey')!.key.gen, 1);
  assert.equal(page.last('sendKey')!.eid, page.member.eid);
  assert.equal(page.of('recvKey').length, 1);
  assert.equal(page.of('keyFrame').length, 1);
  // Permission comes after key, and the key frame after permission.
  const order = page.effects.map((e) => e.t).filter((t) => t !== 'send');
  assert.deepEqual(order.slice(order.indexOf('epoch')), ['epoch', 'sendKey', 'sending', 'recvKey', 'sending', 'keyFrame']);
});

test('a third joins: same transcript for all, new keys, old ones destroyed after the switch', async () => {
  const { line, therapist, patient } = await three();
  assert.equal(hexT(therapist), toHex(line.room.current!.T));
  assert.equal(hexT(patient), hexT(therapist));
  assert.equal(patient.last('epoch')!.epoch.code, therapist.last('epoch')!.epoch.code);
  await assertHears(therapist, patient);
  await assertHears(patient, therapist);
  assert.equal(therapist.last('sendKey')!.key.gen, 2);
  // The therapist could send all the time: the old key served until the new one was confirmed.
  assert.equal(therapist.of('sending').filter((e) => !e.allowed && e.reason !== 'nobody').length, 0);
  assert.equal(therapist.of('dropSendKey').length, 0);
  await line.pass(4500);
  const retired = therapist.of('retireRecv');
  assert.deepEqual(retired.map((r) => [toHex(r.D), r.gen]), [[toHex(line.room.endpoint.D), 1]]);
});

test('a new key is used when all are ready, at latest 2 s after it was announced', async () => {
  const { line, therapist } = await three();
  line.tamper = (raw, m, _from, to) => (m.t === 'ready' && to === therapist ? [] : [raw]);
  await line.carry(therapist, therapist.member.rekey(line.now));
  assert.equal(therapist.last('sendKey')!.key.gen, 2);
  await line.carry(therapist, therapist.member.rekey(line.now));
  await line.pass(1500);
  assert.equal(therapist.last('sendKey')!.key.gen, 2);
  await line.pass(500);
  assert.equal(therapist.last('sendKey')!.key.gen, 3, 'one rotation, although asked for twice');
  assert.deepEqual(therapist.last('sending')!.allowed, false, 'nobody has confirmed it');
});

test('keys rotate every ten minutes under the same transcript', async () => {
  const line = await Line.make();
  const page = await line.begin('patient');
  const T = hexT(page);
  await line.pass(601_000, true, 2500);
  assert.equal(hexT(page), T);
  assert.equal(page.last('sendKey')!.key.gen, 2);
  assert.equal(page.of('recvKey').length, 2);
  await line.pass(5000);
  assert.deepEqual(page.of('retireRecv').map((r) => r.gen), [1]);
  assert.deepEqual(page.last('sending'), { t: 'sending', allowed: true, reason: 'none' });
});

test('a removal stops sending and destroys keys at once', async () => {
  const { line, therapist, patient } = await three();
  const third = await line.join('guest', 'Ann');
  await line.carry(therapist, therapist.member.admit(line.now, third.member.D, 'guest'));
  const admit = line.sent.findLast((m) => m.t === 'admit')!.raw;
  await line.room.start([therapist.member.D, patient.member.D, third.member.D], [admit]);
  await line.flush();
  assert.equal(hexT(third), hexT(patient));
  await line.pass(5000);

  const mark = patient.effects.length;
  await line.carry(therapist, therapist.member.remove(line.now, third.member.D));
  assert.deepEqual(third.last('ended'), { t: 'ended', reason: 'removed' });
  const now = patient.effects.slice(mark).map((e) => e.t);
  assert.equal(now[0], 'sending');
  assert.ok(now.includes('dropSendKey'));
  assert.equal(now.filter((t) => t === 'retireRecv').length, 3);
  assert.deepEqual(patient.last('sending'), { t: 'sending', allowed: false, reason: 'changing' });

  // Nothing of the old transcript is taken any more; the next round brings a key that is used at once.
  await line.room.start([therapist.member.D, patient.member.D], []);
  await line.flush();
  assert.equal(hexT(patient), toHex(line.room.current!.T));
  assert.equal(patient.last('sendKey')!.key.gen, 3);
  assert.deepEqual(patient.last('sending'), { t: 'sending', allowed: true, reason: 'none' });
  await assertHears(patient, therapist);
  await assert.rejects(therapist.member.admit(line.now, third.member.D, 'guest'), OutOfPlaceError);
});

test('a proposal without a member removes it', async () => {
  const { line, therapist, patient } = await three();
  await line.room.start([therapist.member.D], []);
  await line.flush();
  assert.deepEqual(patient.last('ended'), { t: 'ended', reason: 'removed' });
  assert.equal(patient.of('dropSendKey').length, 1);
  assert.equal(hexT(therapist), toHex(line.room.current!.T));
});

test('without a fresh alive nobody sends; a hoarded one does not help', async () => {
  const line = await Line.make();
  const page = await line.begin();
  const hoarded: Bytes[] = [];
  line.tamper = (raw, m) => (m.t === 'alive' ? (hoarded.push(raw), []) : [raw]);
  await line.pass(15_000);
  assert.equal(page.last('sending')!.allowed, true, 'at 15 s');
  await line.pass(500);
  assert.deepEqual(page.last('sending'), { t: 'sending', allowed: false, reason: 'no_alive' });
  await line.pass(20_000);
  // The relay hands out, one by one, what it kept: each is as old as it is.
  for (const raw of hoarded.slice(0, 3)) {
    await line.deliver(raw, page);
    assert.equal(page.last('sending')!.allowed, false);
  }
  await line.deliver(hoarded.at(-1)!, page);
  assert.equal(page.last('sending')!.allowed, true, 'the newest is fresh');
  const effects = page.effects.length;
  await line.deliver(hoarded[0]!, page);
  assert.equal(page.effects.length, effects, 'an old number is no alive');
});

test('an alive withheld from the start keeps the transcript out of force', async () => {
  const line = await Line.make();
  line.tamper = (raw, m) => (m.t === 'alive' ? [] : [raw]);
  const page = await line.begin();
  assertNothingStarted(page);
  await line.pass(31_000);
  assert.equal(page.of('roundFailed').length, 1);
});

test('the end of the session comes from the room alone', async () => {
  const { line, therapist, patient } = await three();
  const { sid } = session;
  const asPatient = new Writer(sid, patient.member.D, patient.member.endpoint.keys.sign);
  await line.deliver(await asPatient.end(2, 1), therapist);
  assert.equal(therapist.of('ended').length, 0);
  const asRoom = new Writer(sid, line.room.endpoint.D, line.room.endpoint.keys.sign);
  await line.deliver(await asRoom.end(2, 99), therapist);
  assert.equal(therapist.of('ended').length, 0, 'a reason without a meaning');
  await line.deliver(await asRoom.end(2, 1), therapist);
  assert.deepEqual(therapist.last('ended'), { t: 'ended', reason: 'ended' });
  assert.equal(therapist.last('sending')!.allowed, false);
  assert.deepEqual(await therapist.member.tick(line.now), [], 'nothing more');
});

test('a member that leaves says so and stops; the others stop sending to it', async () => {
  const { line, therapist, patient } = await three();
  await line.carry(patient, patient.member.leave(line.now));
  assert.deepEqual(patient.last('ended'), { t: 'ended', reason: 'left' });
  assert.deepEqual(therapist.last('sending'), { t: 'sending', allowed: false, reason: 'changing' });
});

test('what people compared: here, by a therapist, and how long it holds', async () => {
  const { line, therapist, patient } = await three();
  // A therapist's word counts only from one who was compared.
  await line.carry(therapist, therapist.member.markEqual(line.now, therapist.member.epoch!.T));
  assert.deepEqual(therapist.member.epoch!.members.map((m) => m.compared || m.self), [true, true, true]);
  assert.equal(patient.of('compared').length, 0);
  await line.carry(patient, patient.member.markEqual(line.now, patient.member.epoch!.T));
  assert.equal(patient.of('compared').length, 2);

  const guest = await line.join('guest', 'Ann');
  await line.carry(therapist, therapist.member.admit(line.now, guest.member.D, 'guest'));
  const admit = line.sent.findLast((m) => m.t === 'admit')!.raw;
  await line.room.start([therapist.member.D, patient.member.D, guest.member.D], [admit]);
  await line.flush();
  const ann = () => patient.member.epoch!.members.find((m) => equal(m.D, guest.member.D))!;
  const lee = () => patient.member.epoch!.members.find((m) => equal(m.D, therapist.member.D))!;
  assert.deepEqual([lee().compared, ann().compared], [true, false]);
  await line.carry(therapist, therapist.member.markEqual(line.now, therapist.member.epoch!.T));
  assert.equal(ann().compared, true);
  assert.equal(toHex(ann().comparedBy!), toHex(therapist.member.D));
  // Words about oneself are none; a patient's word is none.
  const before = guest.of('compared').length;
  const asPatient = new Writer(session.sid, patient.member.D, patient.member.endpoint.keys.sign);
  await line.deliver(await asPatient.compared(guest.member.epoch!.T, therapist.member.D), guest);
  assert.equal(guest.of('compared').length, before);
  await assert.rejects(patient.member.markEqual(line.now, new Uint8Array(32)), OutOfPlaceError);
});

test('different pictures end the session on both sides', async () => {
  const { line, therapist, patient } = await three();
  await line.carry(patient, patient.member.markDifferent(line.now));
  assert.equal(patient.last('failed')!.reason, 'different');
  assert.equal(therapist.last('failed')!.reason, 'different');
  assert.equal(toHex(therapist.last('failed')!.from!), toHex(patient.member.D));
  for (const page of [therapist, patient]) {
    assert.equal(page.last('sending')!.allowed, false);
    assert.ok(page.effects.some((e) => e.t === 'dropSendKey'));
  }
});

test('a check runs a fresh round with the flag, and a new code', async () => {
  const { line, therapist, patient } = await three();
  const code = therapist.last('epoch')!.epoch.code;
  await line.carry(therapist, therapist.member.check(line.now));
  assert.equal(line.sent.at(-1)!.t, 'check');
  await line.room.start([therapist.member.D, patient.member.D], [], 1);
  await line.flush();
  assert.equal(patient.last('epoch')!.epoch.check, true);
  assert.notEqual(patient.last('epoch')!.epoch.code, code);
  assert.equal(patient.last('sending')!.allowed, true);
});

test("a patient is asked about a therapist's guest and answers once for all transcripts", async () => {
  const { line, therapist, patient } = await three();
  const guest = await line.join('guest', 'Ann');
  await line.carry(therapist, therapist.member.admit(line.now, guest.member.D, 'guest'));
  assert.equal(patient.of('askGuest').length, 1);
  await line.carry(patient, patient.member.agreeGuest(line.now, guest.member.D, true));
  const agree = line.sent.at(-1)!;
  assert.equal(agree.t === 'agree' && agree.yes, true);
  // A round for something else comes first: admission and answer are said again for the new T.
  await line.room.start([therapist.member.D, patient.member.D], [], 1);
  await line.flush();
  const again = line.sent.filter((m) => m.t === 'agree');
  assert.equal(again.length, 2);
  assert.equal(patient.of('askGuest').length, 1);
  await assert.rejects(therapist.member.agreeGuest(line.now, guest.member.D, true), OutOfPlaceError);
  await assert.rejects(patient.member.admit(line.now, guest.member.D, 'guest'), OutOfPlaceError);
});

test('messages in any order lead to the same end', async () => {
  const line = await Line.make();
  const page = await line.join('therapist', 'Dr Lee');
  const held: { raw: Bytes; m: Parsed }[] = [];
  // The page hears commit before proposal, and everything of a step in reverse.
  line.tamper = (raw, m, _from, to) => {
    if (to !== page) return [raw];
    held.push({ raw, m });
    return [];
  };
  await line.room.start([page.member.D], [await line.room.admit(page.member.D, 'therapist')]);
  await line.flush();
  for (let i = 0; i < 10 && !page.member.epoch; i++) {
    for (const { raw } of held.splice(0).reverse()) await line.deliver(raw, page);
  }
  for (const { raw } of held.splice(0).reverse()) await line.deliver(raw, page);
  assert.equal(hexT(page), toHex(line.room.current!.T));
  assert.equal(page.last('sending')!.allowed, true);
});

test('what is sent twice has no effect; what is lost comes again by resend', async () => {
  const line = await Line.make();
  const page = await line.begin();
  const effects = page.effects.length;
  for (const m of [...line.sent]) if (!equal('from' in m ? m.from : m.signer, page.member.D)) await line.deliver(m.raw, page);
  assert.equal(page.effects.length, effects);

  const second = await Line.make();
  let lost = 0;
  second.tamper = (raw, m, from) => (from instanceof Page && m.t === 'reveal' && lost++ === 0 ? [] : [raw]);
  const other = await second.begin();
  assert.equal(other.of('epoch').length, 0);
  for (const raw of other.member.resend()) await second.relay(raw, other);
  assert.equal(hexT(other), toHex(second.room.current!.T));
});

test('junk, other sessions and own messages have no effect', async () => {
  const line = await Line.make();
  const page = await line.begin();
  const effects = page.effects.length;
  const alive = await line.room.alive();
  for (let n = 0; n < alive.length; n += 3) await line.deliver(alive.slice(0, n), page);
  await line.deliver(concat(alive, Uint8Array.of(0)), page);
  await line.deliver(new Uint8Array(70_000), page);
  const changed = new Uint8Array(alive);
  changed[40]! ^= 1;
  await line.deliver(changed, page);
  for (const m of line.sent) if ('from' in m && equal(m.from, page.member.D)) await line.deliver(m.raw, page);
  assert.equal(page.effects.length, effects);
});

test('a failed prover or verifier ends the session at this end, with nothing sent', async () => {
  for (const [over, reason] of [
    [{ prove: () => Promise.reject(new Error('no')) }, 'internal'],
    [{ verify: () => Promise.reject(new Error('no')) }, 'proof'],
    [{ verify: async () => 0 as const }, 'proof'],
  ] as const) {
    const line = await Line.make();
    const page = await line.join('therapist', 'Dr Lee', over);
    await line.room.start([page.member.D], [await line.room.admit(page.member.D, 'therapist')]);
    await line.flush().catch(() => undefined);
    assert.equal(page.last('failed')!.reason, reason);
    assertNothingStarted(page);
  }
});

test("the clinic's minimum level is kept", async () => {
  const line = await Line.make();
  const page = await line.join('therapist', 'Dr Lee', { minLevel: {} });
  await line.room.start([page.member.D], [await line.room.admit(page.member.D, 'therapist')]);
  await line.flush().catch(() => undefined);
  assert.equal(page.last('failed')!.reason, 'level');
  assertNothingStarted(page);
});

test('a page cannot be a room', async () => {
  const room = await Room.make();
  assert.throws(() => new Member(room.endpoint, configFor(room.key.spki)), RangeError);
  await assert.rejects(newEndpoint(session, 'guest', 'x\u202ey'));
  await assert.rejects(newEndpoint(session, 'guest', 'x'.repeat(65)), RangeError);
});

test('three rounds that could have told the code end the session', async () => {
  const line = await Line.make();
  const page = await line.begin();
  line.tamper = (raw, m) => (m.t === 'alive' ? [] : [raw]);
  for (let i = 1; i <= 3; i++) {
    const { T, number } = page.member.epoch!;
    line.room.current = { ...line.room.current!, T, e: number };
    await line.room.start([page.member.D], []);
    await line.flush();
    await line.pass(30_500, false);
    assert.equal(page.of('roundFailed').length, i);
  }
  assert.equal(page.last('failed')!.reason, 'guesses');
});

test('time without a connection is nobody’s silence', async () => {
  const line = await Line.make();
  line.tamper = (raw, m) => (m.t === 'alive' ? [] : [raw]);
  const page = await line.begin();
  await line.carry(page, page.member.online(line.now, false));
  assert.equal(page.member.nextDeadline(), undefined);
  await line.pass(40_000);
  assert.equal(page.of('roundFailed').length, 0);
  await line.carry(page, page.member.online(line.now, true));
  await line.pass(31_000);
  assert.equal(page.of('roundFailed').length, 1);
});

