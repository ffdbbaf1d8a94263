import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Notice } from './state.ts';
import { reduce } from './state.ts';
import { after, agreedOn, guest, me, room, toCall, toWaiting } from './testing.ts';
import { announcements, companyWords, coverWords, deviceWords, noticeWords, receiptWords, waitingWords, weakestWords } from './words.ts';

test('words about the devices say what is true', () => {
  const on = after(...toCall);
  assert.equal(deviceWords(on, 'camera'), 'Camera is on. Room 3 sees you.');
  assert.equal(deviceWords(reduce(on, { t: 'sending', allowed: false }), 'camera'), 'Camera is on. Nobody sees you.');
  assert.equal(deviceWords(reduce(on, { t: 'line', line: 'lost' }), 'microphone'), 'Microphone is on. Nobody hears you.');
  assert.equal(deviceWords(reduce(on, { t: 'device', kind: 'camera', on: false }), 'camera'), 'Camera is off.');
  const wanted = reduce(reduce(on, { t: 'device', kind: 'camera', on: false }), { t: 'want', kind: 'camera', wanted: true });
  assert.equal(deviceWords(wanted, 'camera'), 'Camera is off.', 'a button that was pressed is not a camera that is on');
  const three = reduce(on, { t: 'agreed', agreed: agreedOn(room, me, guest) });
  assert.equal(deviceWords(three, 'camera'), 'Camera is on. The others see you.');
});

test('the strip counts people and shows the weakest confirmation', () => {
  const two = after(...toCall);
  assert.equal(companyWords(two), 'Only you and Room 3');
  assert.equal(weakestWords(two), 'Confirmed by the clinic');
  const three = reduce(two, { t: 'agreed', agreed: agreedOn(room, me, guest) });
  assert.equal(companyWords(three), '3 people are here');
  assert.equal(weakestWords(three), 'Not checked yet');
});

test('no picture is replaced by words, never by the last frame', () => {
  const on = after(...toCall, { t: 'remote', identity: 'room', change: { picture: true } });
  assert.deepEqual(coverWords(on), []);
  assert.deepEqual(coverWords(reduce(on, { t: 'line', line: 'short' })), ['One moment.']);
  assert.equal(coverWords(reduce(on, { t: 'line', line: 'lost' })).length, 2);
  const muted = reduce(on, { t: 'remote', identity: 'room', change: { pictureMuted: true } });
  assert.deepEqual(coverWords(muted), ['Room 3 has no camera on.']);
});

test('what arrives at the room comes from its own report', () => {
  const on = after(...toCall);
  assert.deepEqual(receiptWords(on, room), []);
  const report = { video: { frames: 20, width: 640, height: 360 }, audio: { packets: 0, level: -100 }, bps: 1 };
  const told = reduce(on, { t: 'remote', identity: 'room', change: { report } });
  assert.deepEqual(receiptWords(told, room), ['Room 3 receives your picture.', 'Room 3 does not receive your sound.']);
});

test('waiting once more says that the room is back', () => {
  const returned = after(...toWaiting, { t: 'waiting' }, { t: 'admitted' }, { t: 'returned' });
  assert.match(waitingWords(returned)[0]!, /^Room 3 stopped for a moment and is back/);
  assert.match(waitingWords(reduce(returned, { t: 'waiting' }))[0]!, /is back/);
  assert.match(waitingWords(reduce(returned, { t: 'closed_room' }))[0]!, /not open yet/);
});

test('waiting says that the devices are closed, and when they open', () => {
  const [first, second] = waitingWords(after(...toWaiting, { t: 'waiting' }));
  assert.equal(first, 'Room 3 knows that you are here.');
  assert.match(second!, /off while you wait/);
  assert.match(waitingWords(after(...toWaiting, { t: 'relay', up: false }))[0]!, /lost the line/);
});

const notices: readonly Notice[] = [
  { kind: 'browser' },
  { kind: 'media' },
  { kind: 'bad' },
  { kind: 'trust' },
  ...(['unknown', 'used', 'over', 'early', 'slow_down', 'unreachable', 'other'] as const).map(
    (why) => ({ kind: 'join', why }) as const,
  ),
  { kind: 'stopped', different: true, again: true },
  { kind: 'stopped', different: false, again: false },
  ...(['left', 'finished', 'ended', 'removed', 'refused', 'elsewhere'] as const).map((kind) => ({ kind }) as const),
];

test('every notice has words within their budget', () => {
  for (const notice of notices) {
    const words = noticeWords(after(...toWaiting, { t: 'notice', notice }));
    assert.ok(words.title.length > 0 && words.title.length <= 45, words.title);
    assert.ok(words.body.length > 0 && words.body.length <= 3);
    for (const b of [words.again, words.leave]) assert.ok((b ?? '').length <= 22, b);
  }
});

test('a screen reader is told changes once, and losing the line at once', () => {
  const on = after(...toCall);
  assert.deepEqual(announcements(on, on), []);
  const lost = reduce(on, { t: 'line', line: 'lost' });
  const told = announcements(on, lost);
  assert.equal(told.length, 1);
  assert.equal(told[0]!.assertive, true);
  assert.deepEqual(announcements(lost, on), [{ text: 'You are connected again.', assertive: false }]);
  const joined = reduce(on, { t: 'agreed', agreed: agreedOn(room, me, guest) });
  assert.deepEqual(announcements(on, joined), [{ text: '3 people are here', assertive: false }]);
});
