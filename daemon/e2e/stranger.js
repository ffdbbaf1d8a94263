// A page with an unmodified livekit-client that somebody who runs the SFU could make: it takes whatever tracks the SFU
// gives it and plays them. With a key it decrypts, or tries to; without one it plays what comes.
import { BaseKeyProvider, LogLevel, Room, RoomEvent, Track, setLogLevel } from 'livekit-client';

setLogLevel(LogLevel.silent);

const tile = document.createElement('div');
tile.className = 'tile';
document.body.append(tile);

class OneKey extends BaseKeyProvider {
  constructor() {
    super({ sharedKey: true, ratchetWindowSize: 0, failureTolerance: -1, keyringSize: 16 });
  }

  // Under every index, so that the frames are tried with it whatever index they carry.
  async fill(bytes) {
    const key = await crypto.subtle.importKey('raw', bytes, 'HKDF', false, ['deriveBits', 'deriveKey']);
    for (let i = 0; i < 16; i++) this.onSetEncryptionKey(key, undefined, i);
  }
}

const seen = { tracks: [], errors: {}, left: '' };
let room;

async function join({ url, token, key, publish }) {
  const options = { adaptiveStream: false, dynacast: false };
  let provider;
  if (key) {
    provider = new OneKey();
    options.e2ee = { keyProvider: provider, worker: new Worker('worker.js') };
  }
  room = new Room(options);
  room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
    const element = track.attach();
    element.dataset.of = participant.identity;
    if (track.kind === 'video') element.muted = true;
    tile.append(element);
    seen.tracks.push({ kind: track.kind, of: participant.identity, encryption: publication.trackInfo.encryption });
  });
  room.on(RoomEvent.EncryptionError, (error) => {
    const reason = String(error.reason ?? error.message);
    seen.errors[reason] = (seen.errors[reason] ?? 0) + 1;
  });
  room.on(RoomEvent.Disconnected, (reason) => (seen.left = String(reason)));
  if (provider) {
    await provider.fill(Uint8Array.from(key));
    await room.setE2EEEnabled(true);
  }
  await room.connect(url, token, { autoSubscribe: true });
  if (publish) {
    await room.localParticipant.setCameraEnabled(true);
    await room.localParticipant.setMicrophoneEnabled(true);
  }
  return { sid: room.localParticipant.sid, identity: room.localParticipant.identity };
}

const tracks = () => [...room.localParticipant.trackPublications.values()].map((p) => p.track.mediaStreamTrack.id);

window.stranger = { join, seen: () => seen, state: () => room?.state, tracks, Track };
