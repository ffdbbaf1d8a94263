import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Devices, type DeviceKind } from './devices.ts';

class FalseTrack extends EventTarget {
  readyState = 'live';
  readonly kind: string;
  constructor(kind: string) {
    super();
    this.kind = kind;
  }
  stop(): void {
    this.readyState = 'ended';
  }
}

function browser(answer: (c: MediaStreamConstraints) => Error | undefined = () => undefined) {
  const asked: string[] = [];
  const made: FalseTrack[] = [];
  const changed: DeviceKind[] = [];
  const devices = new Devices(
    { changed: (kind) => changed.push(kind) },
    {
      async getUserMedia(c: MediaStreamConstraints = {}) {
        asked.push(Object.keys(c).sort().join('+'));
        const error = answer(c);
        if (error) throw error;
        const tracks = [c.video && new FalseTrack('video'), c.audio && new FalseTrack('audio')].filter((t) => !!t);
        made.push(...(tracks as FalseTrack[]));
        const of = (kind: string) => tracks.filter((t) => (t as FalseTrack).kind === kind);
        return { getTracks: () => tracks, getVideoTracks: () => of('video'), getAudioTracks: () => of('audio') } as never;
      },
    },
  );
  return { devices, asked, made, changed };
}

const named = (name: string) => Object.assign(new Error(), { name });

test('both devices are one question', async () => {
  const b = browser();
  assert.deepEqual(await b.devices.open(['camera', 'microphone']), []);
  assert.deepEqual(b.asked, ['audio+video']);
  assert.deepEqual(b.changed, ['camera', 'microphone']);
  assert.ok(b.devices.track('camera') && b.devices.track('microphone'));
});

test('a missing camera does not cost the microphone', async () => {
  const b = browser((c) => (c.video ? named('NotFoundError') : undefined));
  const troubles = await b.devices.open(['camera', 'microphone']);
  assert.deepEqual(troubles.map((e) => [e.kind, e.trouble]), [['camera', 'missing']]);
  assert.ok(b.devices.track('microphone'));
});

test('says why a device did not open', async () => {
  for (const [name, trouble] of [
    ['NotAllowedError', 'refused'],
    ['NotReadableError', 'busy'],
    ['TypeError', 'broken'],
  ]) {
    const [error] = await browser(() => named(name!)).devices.open(['camera']);
    assert.equal(error!.trouble, trouble);
  }
});

test('off closes the device, also while it opens', async () => {
  const b = browser();
  await b.devices.open(['camera']);
  b.devices.close('camera');
  assert.equal(b.made[0]!.readyState, 'ended');
  assert.equal(b.devices.track('camera'), undefined);
  const opening = b.devices.open(['camera']);
  b.devices.close('camera');
  await opening;
  assert.equal(b.made[1]!.readyState, 'ended');
  assert.equal(b.devices.track('camera'), undefined);
});

test('a device that ends by itself is told', async () => {
  const b = browser();
  await b.devices.open(['camera']);
  b.made[0]!.readyState = 'ended';
  b.made[0]!.dispatchEvent(new Event('ended'));
  assert.deepEqual(b.changed, ['camera', 'camera']);
});
