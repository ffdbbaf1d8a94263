import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import type { RemoteTrack } from 'livekit-client';
import type { AgreedKey, Effect, Epoch, Participant } from '../agreement/api.ts';
import type { Bytes } from '../agreement/bytes.ts';
import type { ConnectionEvents } from '../media/connection.ts';
import { Devices, type DeviceKind } from '../media/devices.ts';
import { noCounters } from '../media/report.ts';
import { Call, type CallConnection, type Over } from './call.ts';
import type { Event } from './state.ts';

const filled = (n: number, x: number): Bytes => new Uint8Array(n).fill(x);
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

function participant(x: number, more: Partial<Participant>): Participant {
  return { D: filled(32, x), eid: `eid-${x}`, role: 'patient', name: `P${x}`, level: 1, verified: 1, self: false, compared: false, ...more };
}

const me = participant(1, { self: true });
const room = participant(2, { role: 'device', level: 3, verified: 3 });

function epoch(...members: Participant[]): Effect {
  const e: Epoch = { number: 1, T: filled(32, 9), members, code: 'AAAA-AAAA', pictures: [0, 1, 2, 3], digits: '0000 0000', check: false };
  return { t: 'epoch', epoch: e };
}

async function key(gen: number): Promise<AgreedKey> {
  const frames = await crypto.subtle.importKey('raw', filled(32, gen), 'HKDF', false, ['deriveBits', 'deriveKey']);
  const data = await crypto.subtle.importKey('raw', filled(32, gen), 'AES-GCM', false, ['encrypt', 'decrypt']);
  return { gen, index: gen % 16, frames, data: { key: data, gen, T: filled(32, 9), from: filled(32, 1) } };
}

/** A call with everything outside it false; `effects` makes the agreement say something. */
async function calling(t: { after(f: () => void): void }) {
  const log: unknown[][] = [];
  const events: Event[] = [];
  const over: Over[] = [];
  const pending: Effect[] = [];
  const made: { events: ConnectionEvents; connection: CallConnection }[] = [];
  Object.assign(globalThis, { document: { hidden: false } });
  mock.timers.enable({ apis: ['setInterval', 'setTimeout'] });
  const socket = {
    binaryType: '',
    readyState: 0,
    onopen: null as ((e: globalThis.Event) => void) | null,
    onclose: null as ((e: { code: number }) => void) | null,
    onerror: null,
    onmessage: null as ((e: { data: unknown }) => void) | null,
    sent: [] as unknown[],
    send(data: unknown) {
      this.sent.push(data);
    },
    close() {},
  };
  const say = async (m: object | Bytes) => {
    socket.onmessage?.({ data: m instanceof Uint8Array ? m.buffer : JSON.stringify(m) });
    await settle();
    await settle();
  };
  const drain = async () => pending.splice(0);
  const devices = new Devices(
    { changed: (kind) => log.push(['device', kind, devices.track(kind) !== undefined]) },
    {
      async getUserMedia(c: MediaStreamConstraints = {}) {
        const track = (kind: string) =>
          Object.assign(new EventTarget(), { kind, readyState: 'live', stop() { this.readyState = 'ended'; } });
        const video = c.video ? [track('video')] : [];
        const audio = c.audio ? [track('audio')] : [];
        return { getTracks: () => [...video, ...audio], getVideoTracks: () => video, getAudioTracks: () => audio } as never;
      },
    },
  );
  const call: Call = new Call({
    relayUrl: 'wss://hub/v1/relay',
    bearer: 'b',
    agreement: {
      D: me.D,
      eid: me.eid,
      handle: drain,
      tick: drain,
      online: drain,
      leave: async () => [{ t: 'send', message: filled(3, 7) }, { t: 'ended', reason: 'left' }],
      resend: () => [filled(2, 5)],
      nextDeadline: () => undefined,
    },
    labelOf: () => undefined,
    devices,
    wanted: () => ['camera', 'microphone'],
    dispatch: (event) => events.push(event),
    tile: (identity) => {
      log.push(['tile', identity]);
      return { video: { requestVideoFrameCallback: () => 0 }, audio: { play: async () => undefined } } as never;
    },
    makeConnection: (_, ring, connectionEvents) => {
      ring.attach({
        setOwnIndex: (index) => log.push(['ownIndex', index]),
        set: (identity, index) => log.push(['key', identity, index]),
      });
      const connection: CallConnection = {
        isConnected: true,
        connect: async () => void log.push(['connect']),
        setMembers: (m) => void log.push(['members', ...m]),
        allowSending: (allowed) => void log.push(['allow', allowed]),
        setTrack: (kind: DeviceKind, media) => void log.push(['track', kind, media !== undefined]),
        keyFrame: async () => void log.push(['keyFrame']),
        sendData: async (identity) => void log.push(['data', identity]),
        counters: async () => noCounters(),
        close: () => void log.push(['close']),
      };
      made.push({ events: connectionEvents, connection });
      return connection;
    },
    over: (how) => over.push(how),
    socket: () => socket,
  });
  t.after(() => {
    call.stop();
    mock.timers.reset();
    Reflect.deleteProperty(globalThis, 'document');
  });
  call.start();
  socket.readyState = 1;
  socket.onopen!(new globalThis.Event('open'));
  await say({
    t: 'welcome',
    sid: 'A'.repeat(22),
    clinic: '00',
    participant: { id: 'p', role: 'patient', name: 'P1' },
    room: { label: 'Room 1' },
    state: 'waiting',
  });
  const effects = async (...list: Effect[]) => {
    pending.push(...list);
    await say(filled(1, 1));
  };
  const admit = () => say({ t: 'admitted', url: 'ws://sfu', token: 't', identity: me.eid });
  const has = (...entry: unknown[]) => log.some((e) => JSON.stringify(e) === JSON.stringify(entry));
  return { call, log, events, over, made, socket, say, effects, admit, has, devices };
}

const track = (kind: string) => ({ kind, isMuted: false, attach: () => undefined, detach: () => [] }) as unknown as RemoteTrack;

test('knocks with its document, and asks for nothing before it is let in', async (t) => {
  const c = await calling(t);
  assert.ok(c.socket.sent.includes(`{"t":"knock","d":"${'01'.repeat(32)}"}`));
  mock.timers.tick(5000);
  assert.equal(c.made.length, 0);
  assert.equal(c.socket.sent.some((m) => String(m).includes('token')), false);
  assert.equal(c.devices.track('camera'), undefined);
});

test('without an accepted epoch nobody is a member and nothing is sent', async (t) => {
  const c = await calling(t);
  await c.admit();
  assert.ok(c.has('connect'));
  assert.ok(c.has('members') && !c.has('members', room.eid));
  assert.ok(!c.has('allow', true));
  assert.equal(c.log.some(([what]) => what === 'track'), false);
  c.made[0]!.events.subscribed(room.eid, track('video'));
  assert.equal(c.log.some(([what]) => what === 'tile'), false, 'nothing is attached');
});

test('the agreement’s order is kept: members, keys, permission, tracks', async (t) => {
  const c = await calling(t);
  await c.admit();
  const k = await key(1);
  c.log.length = 0;
  await c.effects(
    epoch(me, room),
    { t: 'recvKey', D: room.D, eid: room.eid, key: k },
    { t: 'sendKey', eid: me.eid, key: k },
    { t: 'sending', allowed: true, reason: 'none' },
  );
  const order = c.log.filter(([what]) => what !== 'keyFrame');
  assert.deepEqual(order, [
    ['members', room.eid],
    ['key', room.eid, 1],
    ['ownIndex', 1],
    ['key', me.eid, 1],
    ['allow', true],
    ['track', 'camera', true],
    ['track', 'microphone', true],
  ]);
  c.made[0]!.events.subscribed('somebody-else', track('video'));
  assert.ok(!c.has('tile', 'somebody-else'));
  c.made[0]!.events.subscribed(room.eid, track('video'));
  assert.ok(c.has('tile', room.eid));
});

test('who is not in the next epoch is taken off the page', async (t) => {
  const c = await calling(t);
  await c.admit();
  const guest = participant(3, { role: 'guest' });
  await c.effects(epoch(me, room, guest));
  let detached = 0;
  const video = { ...track('video'), detach: () => (detached++, []) } as unknown as RemoteTrack;
  c.made[0]!.events.subscribed(guest.eid, video);
  await c.effects(epoch(me, room));
  assert.equal(detached, 1);
  assert.ok(c.has('members', room.eid));
});

test('sending stops at once when the agreement says so', async (t) => {
  const c = await calling(t);
  await c.admit();
  const k = await key(2);
  await c.effects(epoch(me, room), { t: 'sendKey', eid: me.eid, key: k }, { t: 'sending', allowed: true, reason: 'none' });
  c.log.length = 0;
  await c.effects({ t: 'sending', allowed: false, reason: 'no_alive' });
  assert.deepEqual(c.log[0], ['allow', false]);
  c.call.sendDevices();
  assert.equal(c.log.some(([what]) => what === 'track'), false);
});

test('a failed agreement, a violation and a lost way to judge all close everything', async (t) => {
  const ends: [(c: Awaited<ReturnType<typeof calling>>) => Promise<unknown> | void, Over][] = [
    [(c) => c.effects({ t: 'failed', reason: 'commit_set' }), 'stopped'],
    [(c) => c.effects({ t: 'failed', reason: 'different' }), 'different'],
    [(c) => c.made[0]!.events.violated({} as never), 'stopped'],
    [(c) => c.say({ t: 'ended', reason: 'over' }), { kind: 'ended' }],
    [(c) => c.say({ t: 'removed', reason: '' }), { kind: 'removed' }],
    [(c) => c.say({ t: 'removed', reason: 'room_restarted' }), 'restart'],
    [(c) => c.effects({ t: 'ended', reason: 'removed' }), { kind: 'removed' }],
    [(c) => c.socket.onclose!({ code: 4001 }), { kind: 'elsewhere' }],
  ];
  for (const [end, how] of ends) {
    const c = await calling(t);
    await c.admit();
    await c.effects(epoch(me, room), { t: 'sending', allowed: true, reason: 'none' });
    await end(c);
    assert.deepEqual(c.over, [how]);
    assert.equal(c.devices.track('camera'), undefined, 'the devices are closed');
    assert.deepEqual(c.log.filter(([what]) => what === 'allow').at(-1), ['allow', false]);
    assert.ok(c.has('close'));
    mock.timers.reset();
  }
});

test('leaving tells the others, and is no end that came from them', async (t) => {
  const c = await calling(t);
  await c.admit();
  await c.effects(epoch(me, room), { t: 'sending', allowed: true, reason: 'none' });
  c.socket.sent.length = 0;
  await c.call.leave();
  assert.deepEqual(c.socket.sent, [filled(3, 7), '{"t":"leave"}']);
  assert.deepEqual(c.over, []);
  assert.equal(c.devices.track('camera'), undefined);
});

test('a lost connection is followed by a new one that gets members, keys and tracks again', async (t) => {
  const c = await calling(t);
  await c.admit();
  const k = await key(3);
  await c.effects(epoch(me, room), { t: 'sendKey', eid: me.eid, key: k }, { t: 'sending', allowed: true, reason: 'none' });
  c.made[0]!.events.lost();
  mock.timers.tick(1);
  assert.equal(c.socket.sent.at(-1), '{"t":"token"}');
  c.log.length = 0;
  await c.say({ t: 'token', url: 'ws://sfu', token: 't2', identity: me.eid });
  assert.equal(c.made.length, 2);
  assert.ok(c.has('key', me.eid, 3) && c.has('members', room.eid) && c.has('allow', true) && c.has('track', 'camera', true));
});
