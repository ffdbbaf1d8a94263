// The receiving page of the measurements, the same for the room and for its rival: the call page's own connection to
// LiveKit, strict worker, key ring and relay, one picture and one sound, and no words around them.
//
// `member` takes part in a session by its link, as the call page does; `watch` receives a publisher whose key it is given
// together with the token. Times are milliseconds since 1970.

import { LogLevel, setLogLevel, type RemoteTrack } from 'livekit-client';
import { fetchClinic, newMember } from '../../../../provisioning/web/src/call/agreement.ts';
import { trustedWorkerUrl } from '../../../../provisioning/web/src/call/assets.ts';
import { Call, type MakeConnection } from '../../../../provisioning/web/src/call/call.ts';
import type { Event } from '../../../../provisioning/web/src/call/state.ts';
import { Connection, type CallWorker } from '../../../../provisioning/web/src/media/connection.ts';
import { Devices, type DeviceKind } from '../../../../provisioning/web/src/media/devices.ts';
import { KeyRing } from '../../../../provisioning/web/src/media/keys.ts';
import { guardScriptTransform, strictOver } from '../../../../provisioning/web/src/media/strictworker.ts';
import { fromBase64url } from '../../../../provisioning/web/src/agreement/bytes.ts';
import { join, readLink, relayUrl } from '../../../../provisioning/web/src/relay/join.ts';
import type { Admission } from '../../../../provisioning/web/src/relay/messages.ts';

/** A viewer without a picture this long after subscribing asks for a key frame; the call page's own figure. */
const keyFrameAfter = 300;

interface Times {
  token?: number;
  agreed?: number;
  subscribed?: number;
  first?: number;
  asked: number;
  over?: string;
}

const times: Times = { asked: 0 };
const epoch = () => performance.timeOrigin + performance.now();

const StrictWorker = strictOver(Worker as unknown as Parameters<typeof strictOver>[0]);
setLogLevel(LogLevel.silent);
guardScriptTransform(globalThis as { RTCRtpScriptTransform?: unknown }, (worker) => worker instanceof StrictWorker);

/** Called as soon as the token is there, for whichever side it is. */
const makeConnection = (...[own, ring, events]: Parameters<MakeConnection>): Connection => {
  times.token ??= epoch();
  return new Connection(own, new StrictWorker(trustedWorkerUrl()) as unknown as CallWorker, ring, events);
};

const tile = {
  video: document.querySelector('video')!,
  audio: document.querySelector('audio')!,
};
const pictured = new Promise<void>((resolve) =>
  tile.video.requestVideoFrameCallback(() => {
    times.first = epoch();
    resolve();
  }),
);

/** Everybody else's tracks go to elements that nobody sees: a page of a session plays them, too. */
const others = new Map<string, typeof tile>();
function tileOf(identity: string): typeof tile {
  if (identity === room) {
    times.subscribed ??= epoch();
    return tile;
  }
  let other = others.get(identity);
  if (!other) others.set(identity, (other = { video: document.createElement('video'), audio: new Audio() }));
  return other;
}

let room: string | undefined;
let call: Call | undefined;
let waiting: () => void;
const knocked = new Promise<void>((resolve) => (waiting = resolve));

function note(event: Event): void {
  if (event.t === 'waiting') waiting();
  if (event.t === 'agreed') {
    times.agreed ??= epoch();
    room = event.agreed.people.find((p) => p.role === 'device')?.identity;
  }
}

/** Joins by the link in the address and knocks; resolves when the room knows that somebody waits. */
async function member(...kinds: readonly DeviceKind[]): Promise<void> {
  const link = readLink(location.hash);
  const joined = await join(link);
  const clinic = await fetchClinic(link);
  const { role, name } = joined.participant;
  const agreement = await newMember(clinic, {
    sid: fromBase64url(joined.session.sid),
    role: role as 'therapist',
    name,
  });
  const devices: Devices = new Devices({ changed: () => call?.sendDevices() });
  call = new Call({
    relayUrl: relayUrl(link),
    bearer: joined.bearer,
    agreement,
    labelOf: (D) => clinic.device(D)?.label,
    devices,
    wanted: () => kinds,
    dispatch: note,
    tile: tileOf,
    makeConnection,
    over: (how) => (times.over = typeof how === 'string' ? how : how.kind),
  });
  call.start();
  await knocked;
}

/** Receives one publisher of a LiveKit room that belongs to no session. */
async function watch(admission: Admission, publisher: string, secret: string): Promise<void> {
  const ring = new KeyRing(admission.identity);
  const usages: KeyUsage[] = ['deriveBits', 'deriveKey'];
  const key = await crypto.subtle.importKey('raw', fromBase64url(secret), 'HKDF', false, usages);
  ring.receive(publisher, 0, key);
  const ask = () => {
    if (times.first !== undefined) return;
    times.asked++;
    void connection.sendData(publisher, new Uint8Array([1]));
    setTimeout(ask, keyFrameAfter);
  };
  const connection: Connection = makeConnection(admission.identity, ring, {
    subscribed(_, track: RemoteTrack) {
      times.subscribed ??= epoch();
      track.attach(track.kind === 'audio' ? tile.audio : tile.video);
      if (track.kind === 'audio') void tile.audio.play().catch(() => undefined);
      else setTimeout(ask, keyFrameAfter);
    },
    unsubscribed: () => undefined,
    muted: () => undefined,
    data: () => undefined,
    refused: () => undefined,
    lost: () => (times.over = 'lost'),
    violated: () => (times.over = 'violated'),
  });
  connection.setMembers(new Set([publisher]));
  leave = async () => connection.close();
  await connection.connect(admission);
}

let leave = async (): Promise<void> => call?.leave();

Object.assign(globalThis, {
  bench: {
    member,
    watch,
    picture: async () => {
      await pictured;
      return times;
    },
    times: () => times,
    leave: () => leave(),
  },
});
