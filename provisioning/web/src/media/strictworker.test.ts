import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { guardScriptTransform, keyOptions, RefusedError, strictOver, ViolationError } from './strictworker.ts';

/** A worker that keeps what it is sent. */
class FalseWorker extends EventTarget {
  readonly sent: { kind: string; data?: Record<string, unknown> }[] = [];
  terminated = false;
  postMessage(message: unknown): void {
    this.sent.push(message as (typeof this.sent)[number]);
  }
  terminate(): void {
    this.terminated = true;
  }
  answer(data: unknown): boolean {
    let seen = false;
    this.addEventListener('message', () => (seen = true), { once: true });
    this.dispatchEvent(new MessageEvent('message', { data }));
    return seen;
  }
}

const StrictWorker = strictOver(FalseWorker);
const own = 'own-eid';
const room = 'room-eid';
const stranger = 'stranger-eid';

const init = { kind: 'init', data: { keyProviderOptions: { ...keyOptions, keySize: 128 }, loglevel: 5 } };

function started(options: { members?: string[] } = {}) {
  const violations: ViolationError[] = [];
  const worker = new StrictWorker().guard({ own, onViolation: (error) => violations.push(error) });
  worker.postMessage(init);
  worker.setMembers(options.members ?? [room]);
  worker.sent.length = 0;
  return { worker, violations };
}

function stream(kind: string, participantIdentity: string, trackId: string) {
  return { kind, data: { participantIdentity, trackId, readableStream: {}, writableStream: {} } };
}

function enable(participantIdentity: string, enabled: boolean) {
  return { kind: 'enable', data: { participantIdentity, enabled } };
}

function key(participantIdentity: string, keyIndex: number, updateCurrentKeyIndex = true) {
  return { kind: 'setKey', data: { participantIdentity, keyIndex, key: {}, updateCurrentKeyIndex, isPublisher: false } };
}

/** Asserts that a message ends the worker and tells once. */
function violates(run: ReturnType<typeof started>, message: unknown): void {
  const sent = run.worker.sent.length;
  assert.throws(() => run.worker.postMessage(message), ViolationError);
  assert.equal(run.worker.sent.length, sent, 'nothing may pass');
  assert.equal(run.violations.length, 1);
  assert.equal(run.worker.terminated, true);
  assert.throws(() => run.worker.postMessage(enable(room, true)), ViolationError, 'closed for good');
  assert.equal(run.violations.length, 1);
}

test('livekit-client is the version that these rules were read against', () => {
  const lock = JSON.parse(readFileSync('package-lock.json', 'utf8'));
  assert.equal(lock.packages['node_modules/livekit-client'].version, '2.23.0');
});

test('the worker is told that our own encryption is on before anything else', () => {
  const worker = new StrictWorker().guard({ own, onViolation: () => undefined });
  worker.postMessage(init);
  assert.deepEqual(worker.sent, [init, enable(own, true)]);
  // livekit-client did not ask, and would throw at the answer.
  assert.equal(worker.answer(enable(own, true)), false);
  assert.equal(worker.answer(enable(own, true)), true);
});

test('init with other key options is refused', () => {
  for (const [name, value] of Object.entries({ sharedKey: true, ratchetWindowSize: 8, failureTolerance: 10, keyringSize: 256 })) {
    const worker = new StrictWorker().guard({ own, onViolation: () => undefined });
    const options = { ...keyOptions, [name]: value };
    assert.throws(() => worker.postMessage({ kind: 'init', data: { keyProviderOptions: options } }), ViolationError, name);
    assert.deepEqual(worker.sent, []);
  }
});

test('nobody switches encryption off', () => {
  violates(started(), enable(room, false));
  violates(started(), enable(stranger, false));
  const run = started();
  run.worker.postMessage(enable(own, false));
  assert.deepEqual(run.worker.sent, [], 'a false of before our own true is swallowed');
  run.worker.postMessage(enable(own, true));
  violates(run, enable(own, false));
});

test('a stranger has no encryption state, a member-to-be gets it when accepted', () => {
  const { worker } = started();
  worker.postMessage(enable(stranger, true));
  worker.postMessage(enable('newcomer', true));
  assert.deepEqual(worker.sent, []);
  worker.setMembers([room, 'newcomer']);
  assert.deepEqual(worker.sent, [enable('newcomer', true)]);
  worker.setMembers([room, 'newcomer', own]);
  assert.equal(worker.sent.length, 1);
});

test('server-injected frames, ratcheting and data encryption do not reach the worker', () => {
  const { worker, violations } = started();
  for (const kind of ['setSifTrailer', 'ratchetRequest', 'encryptDataRequest', 'decryptDataRequest']) {
    worker.postMessage({ kind, data: {} });
  }
  assert.deepEqual(worker.sent, []);
  assert.deepEqual(violations, []);
});

test('streams are bound to identities', () => {
  const { worker } = started();
  worker.postMessage(stream('encode', own, 'camera'));
  worker.postMessage(stream('decode', room, 'video'));
  assert.equal(worker.sent.length, 2);
  assert.throws(() => worker.postMessage(stream('decode', stranger, 'x')), RefusedError);
  assert.equal(worker.sent.length, 2);
  violates(started(), stream('encode', room, 'camera'));
  violates(started(), stream('decode', own, 'camera'));
});

test('the SFU cannot reach our own cryptor through the id of our own track', () => {
  for (const attack of [
    stream('decode', room, 'camera'),
    stream('decode', stranger, 'camera'),
    { kind: 'removeTransform', data: { participantIdentity: own, trackId: 'camera' } },
    { kind: 'removeTransform', data: { participantIdentity: room, trackId: 'camera' } },
    { kind: 'updateCodec', data: { participantIdentity: room, trackId: 'camera', codec: 'vp8' } },
    { kind: 'updateCodec', data: { participantIdentity: room, trackId: 'video', previousTrackId: 'camera' } },
    { kind: 'updateCodec', data: { participantIdentity: own, trackId: 'video', previousTrackId: 'camera' } },
  ]) {
    const run = started();
    run.worker.postMessage(stream('encode', own, 'camera'));
    violates(run, attack);
  }
  const run = started();
  run.worker.postMessage(stream('decode', room, 'camera'));
  violates(run, stream('encode', own, 'camera'));
});

test('one track id belongs to one member until it is released', () => {
  const run = started({ members: [room, 'guest'] });
  run.worker.postMessage(stream('decode', room, 'video'));
  run.worker.postMessage({ kind: 'removeTransform', data: { participantIdentity: 'guest', trackId: 'video' } });
  assert.equal(run.worker.sent.length, 1, 'somebody else cannot release it');
  run.worker.postMessage({ kind: 'removeTransform', data: { participantIdentity: room, trackId: 'video' } });
  run.worker.postMessage(stream('decode', 'guest', 'video'));
  assert.equal(run.worker.sent.length, 3);
  violates(run, stream('decode', room, 'video'));
});

test('keys of strangers are dropped, and only the agreed index becomes current', () => {
  const { worker } = started();
  worker.setOwnIndex(3);
  worker.postMessage(key(stranger, 0));
  worker.postMessage(key(own, 2));
  worker.postMessage(key(own, 3, false));
  worker.postMessage(key(room, 9));
  const current = worker.sent.map((m) => [m.data!['participantIdentity'], m.data!['keyIndex'], m.data!['updateCurrentKeyIndex']]);
  assert.deepEqual(current, [
    [own, 2, false],
    [own, 3, true],
    [room, 9, true],
  ]);
});

test('codec maps are our own; unknown messages are refused', () => {
  const { worker } = started();
  worker.postMessage({ kind: 'setRTPMap', data: { participantIdentity: own, map: new Map() } });
  assert.equal(worker.sent.length, 1);
  violates(started(), { kind: 'setRTPMap', data: { participantIdentity: room, map: new Map() } });
  violates(started(), { kind: 'somethingNew', data: {} });
  violates(started(), stream('decode', '', 'video'));
});

test('an unguarded worker takes nothing', () => {
  assert.throws(() => new StrictWorker().postMessage(enable(room, true)));
});

test('script transforms follow the same rules', () => {
  const made: unknown[] = [];
  class Transform {
    constructor(_: unknown, options: unknown) {
      made.push(options);
    }
  }
  const scope: { RTCRtpScriptTransform?: unknown } = { RTCRtpScriptTransform: Transform };
  guardScriptTransform(scope, (w): w is InstanceType<typeof StrictWorker> => w instanceof StrictWorker);
  const Guarded = scope.RTCRtpScriptTransform as new (worker: unknown, options: unknown) => object;
  const run = started();
  const options = (kind: string, participantIdentity: string, trackId: string) => ({ kind, participantIdentity, trackId });
  assert.ok(new Guarded(run.worker, options('encode', own, 'camera')) instanceof Transform);
  new Guarded(run.worker, options('decode', room, 'video'));
  assert.equal(made.length, 2);
  assert.throws(() => new Guarded(run.worker, options('decode', stranger, 'x')), RefusedError);
  assert.throws(() => new Guarded(new FalseWorker(), options('decode', room, 'y')), ViolationError);
  assert.throws(() => new Guarded(run.worker, options('decode', room, 'camera')), ViolationError);
  assert.equal(run.violations.length, 1);
  assert.equal(made.length, 2);
  guardScriptTransform({}, (w): w is never => w === undefined);
});
