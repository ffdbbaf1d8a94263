// What one side received from a member during the last second; travels as a sealed data message each second
// (provisioning/hub/PROTOCOL.md, "Room to page"). The sender of the media takes its rate from it, and its screen may say
// that its picture arrives.

import { fromUtf8, MalformedError, utf8, type Bytes } from '../agreement/bytes.ts';

export interface Report {
  readonly video: { readonly frames: number; readonly width: number; readonly height: number };
  readonly audio: { readonly packets: number; readonly level: number };
  readonly bps: number;
}

export type DataMessage = { readonly t: 'keyframe' } | ({ readonly t: 'report' } & Report);

/** Level of silence, and of no sound at all, in dBFS. */
export const silence = -100;

function fields(value: unknown, names: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new MalformedError('not an object');
  if (Object.keys(value).sort().join() !== [...names].sort().join()) throw new MalformedError('unexpected names');
  return value as Record<string, unknown>;
}

function count(value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw new MalformedError('not a count');
  return value;
}

function level(value: unknown): number {
  if (typeof value !== 'number' || value > 0 || value < -200) throw new MalformedError('not a level');
  return value;
}

/** Reads a data message that a member sealed. Throws MalformedError. */
export function readDataMessage(body: Uint8Array): DataMessage {
  let value: unknown;
  try {
    value = JSON.parse(fromUtf8(body));
  } catch {
    throw new MalformedError('data message is not JSON');
  }
  if ((value as { t?: unknown } | null)?.t === 'keyframe') {
    fields(value, ['t']);
    return { t: 'keyframe' };
  }
  const m = fields(value, ['t', 'video', 'audio', 'bps']);
  if (m['t'] !== 'report') throw new MalformedError('data message of unknown kind');
  const video = fields(m['video'], ['frames', 'width', 'height']);
  const audio = fields(m['audio'], ['packets', 'level']);
  return {
    t: 'report',
    video: { frames: count(video['frames']), width: count(video['width']), height: count(video['height']) },
    audio: { packets: count(audio['packets']), level: level(audio['level']) },
    bps: count(m['bps']),
  };
}

export function writeDataMessage(message: DataMessage): Bytes {
  return utf8(JSON.stringify(message));
}

/** The counters of one receiver that a report is made of; what the browser leaves out counts as 0. */
export interface Counters {
  framesDecoded: number;
  frameWidth: number;
  frameHeight: number;
  packetsReceived: number;
  audioEnergy: number;
  audioSeconds: number;
  bytesReceived: number;
}

export function noCounters(): Counters {
  return {
    framesDecoded: 0,
    frameWidth: 0,
    frameHeight: 0,
    packetsReceived: 0,
    audioEnergy: 0,
    audioSeconds: 0,
    bytesReceived: 0,
  };
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}

/** Adds one receiver's statistics (webrtc-stats, "inbound-rtp"). */
export function addStats(counters: Counters, stats: Iterable<Record<string, unknown>>): void {
  for (const s of stats) {
    if (s['type'] !== 'inbound-rtp') continue;
    counters.bytesReceived += number(s['bytesReceived']);
    if (s['kind'] === 'video') {
      counters.framesDecoded += number(s['framesDecoded']);
      counters.frameWidth = number(s['frameWidth']);
      counters.frameHeight = number(s['frameHeight']);
    } else if (s['kind'] === 'audio') {
      counters.packetsReceived += number(s['packetsReceived']);
      counters.audioEnergy += number(s['totalAudioEnergy']);
      counters.audioSeconds += number(s['totalSamplesDuration']);
    }
  }
}

/** The report for the time between two readings, `seconds` apart. A receiver that started anew counts from 0. */
export function difference(before: Counters, now: Counters, seconds: number): Report {
  const rise = (name: keyof Counters) => Math.max(0, now[name] - (now[name] < before[name] ? 0 : before[name]));
  const heard = rise('audioSeconds');
  const power = heard > 0 ? rise('audioEnergy') / heard : 0;
  return {
    video: { frames: rise('framesDecoded'), width: now.frameWidth, height: now.frameHeight },
    audio: {
      packets: rise('packetsReceived'),
      level: power > 0 ? Math.max(silence, Math.min(0, Math.round(10 * Math.log10(power)))) : silence,
    },
    bps: Math.round((8 * rise('bytesReceived')) / seconds),
  };
}
