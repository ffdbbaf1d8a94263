import assert from 'node:assert/strict';
import { test } from 'node:test';
import { confirmationOf, others, reduce, type Event, type State } from './state.ts';
import { after, agreedOn, guest, me, room, toCall, toWaiting } from './testing.ts';

test('the whole way in', () => {
  const screens = toCall.map((_, i) => after(...toCall.slice(0, i + 1)).screen);
  assert.deepEqual([...new Set(screens)], ['joining', 'ask', 'check', 'waiting', 'securing', 'call']);
});

test('no step is skipped by an event that comes too early', () => {
  const early: Event[] = [{ t: 'admitted' }, { t: 'agreed', agreed: agreedOn(room, me) }, { t: 'passed' }, { t: 'waiting' }];
  for (const event of early) assert.equal(after(event).screen, 'welcome', event.t);
});

test('an agreement that comes before the hub says "admitted" is not lost', () => {
  const state = after(...toWaiting, { t: 'agreed', agreed: agreedOn(room, me) });
  assert.equal(state.screen, 'waiting');
  const inside = reduce(state, { t: 'admitted' });
  assert.equal(inside.screen, 'call');
  assert.deepEqual(others(inside).map((p) => p.name), ['Room 3']);
});

test('people come from the agreement alone', () => {
  const state = after(...toCall, { t: 'remote', identity: 'ghost', change: { picture: true } });
  assert.deepEqual(Object.keys(state.remotes), ['room']);
  assert.deepEqual(others(state).map((p) => p.name), ['Room 3']);
  const three = after(...toCall, { t: 'agreed', agreed: agreedOn(guest, me, room) });
  assert.deepEqual(others(three).map((p) => p.name), ['Room 3', 'Sam'], 'the room first');
  const two = reduce(three, { t: 'agreed', agreed: agreedOn(me, room) });
  assert.deepEqual(Object.keys(two.remotes), ['room'], 'who has left is gone');
});

test('a new epoch keeps the picture of who stays', () => {
  const state = after(
    ...toCall,
    { t: 'remote', identity: 'room', change: { picture: true } },
    { t: 'agreed', agreed: agreedOn(room, me, guest) },
  );
  assert.equal(state.remotes['room']!.picture, true);
  assert.equal(state.remotes['guest']!.picture, false);
});

test('a notice ends everything, and late events do not bring the call back', () => {
  const stopped = after(...toCall, { t: 'stopped', different: true });
  assert.equal(stopped.screen, 'notice');
  assert.equal(stopped.agreed, undefined);
  assert.equal(stopped.sending, false);
  const late: Event[] = [
    { t: 'agreed', agreed: agreedOn(room, me) },
    { t: 'admitted' },
    { t: 'sending', allowed: true },
    { t: 'line', line: 'good' },
    { t: 'waiting' },
  ];
  for (const event of late) assert.equal(reduce(stopped, event), stopped, event.t);
});

test('again leads to the waiting room, twice stopped leads to the desk', () => {
  const once = after(...toCall, { t: 'stopped', different: false });
  assert.deepEqual(once.notice, { kind: 'stopped', different: false, again: true });
  const waiting = reduce(once, { t: 'again' });
  assert.equal(waiting.screen, 'waiting');
  assert.equal(waiting.lobby, 'sending');
  const twice = [{ t: 'admitted' }, { t: 'stopped', different: false }] satisfies Event[];
  const end = twice.reduce<State>(reduce, waiting);
  assert.deepEqual(end.notice, { kind: 'stopped', different: false, again: false });
});

test('a comparison marks one person', () => {
  const state = after(...toCall, { t: 'agreed', agreed: agreedOn(room, me, guest) }, { t: 'compared', identity: 'guest', by: 'Dr Lee' });
  const compared = state.agreed!.people.filter((p) => p.compared);
  assert.deepEqual(compared.map((p) => [p.identity, p.comparedBy]), [['guest', 'Dr Lee']]);
});

test('sure is only what this page verified itself', () => {
  assert.equal(confirmationOf(room), 'confirmed');
  assert.equal(confirmationOf({ ...room, verified: 0 }), 'signed_in');
  assert.equal(confirmationOf(guest), 'server_only');
  assert.equal(confirmationOf({ ...guest, level: 2 }), 'signed_in');
  assert.equal(confirmationOf({ ...guest, compared: true }), 'checked');
  assert.equal(confirmationOf({ ...guest, compared: true, comparedBy: 'Dr Lee' }), 'checked_by');
});
