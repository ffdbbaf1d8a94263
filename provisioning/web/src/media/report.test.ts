import assert from 'node:assert/strict';
import { test } from 'node:test';
import { utf8 } from '../agreement/bytes.ts';
import { addStats, difference, noCounters, readDataMessage, silence, writeDataMessage } from './report.ts';

const report = {
  t: 'report',
  video: { frames: 24, width: 640, height: 360 },
  audio: { packets: 50, level: -31.5 },
  bps: 512000,
} as const;

test('messages survive the way', () => {
  assert.deepEqual(readDataMessage(writeDataMessage(report)), report);
  assert.deepEqual(readDataMessage(writeDataMessage({ t: 'keyframe' })), { t: 'keyframe' });
});

test('anything else is refused', () => {
  for (const bad of [
    '',
    'null',
    '[]',
    '{}',
    '{"t":"keyframe","x":1}',
    '{"t":"unmute"}',
    JSON.stringify({ ...report, extra: 1 }),
    JSON.stringify({ ...report, bps: -1 }),
    JSON.stringify({ ...report, bps: 0.5 }),
    JSON.stringify({ ...report, audio: { packets: 1, level: 3 } }),
    JSON.stringify({ ...report, video: { frames: '24', width: 1, height: 1 } }),
    JSON.stringify({ ...report, video: null }),
  ]) {
    assert.throws(() => readDataMessage(utf8(bad)), bad);
  }
});

test('a report is the difference of a second', () => {
  const before = noCounters();
  const now = noCounters();
  const video = { type: 'inbound-rtp', kind: 'video', framesDecoded: 100, frameWidth: 640, frameHeight: 360, bytesReceived: 1000 };
  const audio = { type: 'inbound-rtp', kind: 'audio', packetsReceived: 50, totalAudioEnergy: 1, totalSamplesDuration: 10, bytesReceived: 100 };
  addStats(before, [video, audio, { type: 'codec' }]);
  addStats(now, [
    { ...video, framesDecoded: 124, bytesReceived: 2000 },
    { ...audio, packetsReceived: 100, totalAudioEnergy: 1.01, totalSamplesDuration: 11, bytesReceived: 350 },
  ]);
  assert.deepEqual(difference(before, now, 1), {
    video: { frames: 24, width: 640, height: 360 },
    audio: { packets: 50, level: -20 },
    bps: 10000,
  });
});

test('nothing received is silence, and a receiver that started anew counts from 0', () => {
  assert.equal(difference(noCounters(), noCounters(), 1).audio.level, silence);
  const before = { ...noCounters(), framesDecoded: 500, bytesReceived: 9000 };
  const now = { ...noCounters(), framesDecoded: 3, bytesReceived: 100 };
  const r = difference(before, now, 1);
  assert.equal(r.video.frames, 3);
  assert.equal(r.bps, 800);
});
