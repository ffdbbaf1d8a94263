// One connection to LiveKit, from connect to disconnect, never used again: a new one has a new Room, a new key provider
// and a new worker. livekit-client's own reconnection is off (its policy gives up at once); `line.ts` starts the next.
//
// What is received is offered to the page only when the sender's identity is a member of the accepted transcript and the
// track is announced as encrypted with GCM; anything else is not subscribed to, and not attached when it comes all the
// same. What is sent leaves only through the strict worker, under a key of the agreement.

import {
  ConnectionState,
  LocalAudioTrack,
  LocalVideoTrack,
  Room,
  RoomEvent,
  Track,
  type LocalTrack,
  type RemoteParticipant,
  type RemoteTrack,
  type RemoteTrackPublication,
  type RoomOptions,
} from 'livekit-client';
import type { Bytes } from '../agreement/bytes.ts';
import { dataTopic } from '../data/seal.ts';
import type { Admission } from '../relay/messages.ts';
import type { DeviceKind } from './devices.ts';
import { CallKeys, type KeyRing } from './keys.ts';
import { addStats, noCounters, type Counters } from './report.ts';
import { ViolationError, type Strict, type StrictOptions } from './strictworker.ts';

/** Encryption_Type.GCM of LiveKit's protocol (livekit_models.proto). */
const gcm = 1;

/** Our tuning of what the page sends; the room asks for less when less arrives. */
const sending = { videoBits: 900_000, frames: 24, audioBits: 32_000 };

/** How long one attempt to connect may take, in milliseconds. */
const patience = { websocket: 3000, peerConnection: 6000 };

/** A strict worker as this file needs it. */
export type CallWorker = Worker & Strict & { guard(options: StrictOptions): unknown };

export interface ConnectionEvents {
  /** A member's encrypted track can be shown or heard. */
  subscribed(identity: string, track: RemoteTrack): void;
  unsubscribed(identity: string, track: RemoteTrack): void;
  /** The member turned the camera or microphone off or on (the server's word: for display only). */
  muted(identity: string, kind: DeviceKind, muted: boolean): void;
  /** A data packet of the member, still sealed. */
  data(identity: string, packet: Uint8Array): void;
  /** Something that was announced in the clear, or by a stranger, was left out. */
  refused(what: string): void;
  /** The connection is over; never called before `connect` has returned. */
  lost(): void;
  /** The server tried to weaken the encryption. The call has to end. */
  violated(error: ViolationError): void;
}

function roomOptions(keyProvider: CallKeys, worker: Worker): RoomOptions {
  return {
    adaptiveStream: false,
    dynacast: false,
    disconnectOnPageLeave: true,
    stopLocalTrackOnUnpublish: false,
    reconnectPolicy: { nextRetryDelayInMs: () => null },
    // `e2ee`, not `encryption`: the latter would seal data messages with the media key.
    e2ee: { keyProvider, worker },
    publishDefaults: {
      videoCodec: 'vp8',
      backupCodec: false,
      simulcast: false,
      videoEncoding: { maxBitrate: sending.videoBits, maxFramerate: sending.frames },
      audioPreset: { maxBitrate: sending.audioBits },
      forceStereo: false,
      // Without sound no frames: the sizes would tell who speaks. RED would send each frame twice, under one IV scheme.
      dtx: false,
      red: false,
    },
  };
}

export class Connection {
  readonly #own: string;
  readonly #events: ConnectionEvents;
  readonly #worker: CallWorker;
  readonly #ring: KeyRing;
  readonly #room: Room;
  #members: ReadonlySet<string> = new Set();
  #published: Record<DeviceKind, LocalAudioTrack | LocalVideoTrack | undefined> = { camera: undefined, microphone: undefined };
  #queue: Promise<unknown> = Promise.resolve();
  #sendingAllowed = false;
  #closed = false;

  constructor(own: string, worker: CallWorker, ring: KeyRing, events: ConnectionEvents) {
    this.#own = own;
    this.#events = events;
    this.#worker = worker;
    this.#ring = ring;
    worker.guard({ own, onViolation: (error) => this.#violate(error) });
    const keys = new CallKeys();
    this.#room = new Room(roomOptions(keys, worker));
    this.#listen();
    ring.attach({
      setOwnIndex: (index) => worker.setOwnIndex(index),
      set: (identity, index, key) => keys.set(identity, index, key),
    });
  }

  get isConnected(): boolean {
    return !this.#closed && this.#room.state === ConnectionState.Connected;
  }

  /** Connects as the identity of this page's document and no other. Throws when it does not succeed. */
  async connect({ url, token, identity }: Admission): Promise<void> {
    if (identity !== this.#own) throw new ViolationError('the token is for another identity');
    await this.#room.setE2EEEnabled(true);
    await this.#room.connect(url, token, {
      autoSubscribe: false,
      maxRetries: 0,
      websocketTimeout: patience.websocket,
      peerConnectionTimeout: patience.peerConnection,
    });
    if (this.#room.localParticipant.identity !== this.#own) {
      this.#violate(new ViolationError('the server gave this page another identity'));
      throw new ViolationError('the server gave this page another identity');
    }
    if (this.#closed) throw new Error('closed while connecting');
    this.#subscribeAll();
  }

  /** The members whose tracks may be received. Tracks of everybody else are given up. */
  setMembers(identities: ReadonlySet<string>): void {
    this.#members = identities;
    this.#worker.setMembers(identities);
    this.#subscribeAll();
  }

  /** Until this is true, nothing of the page's camera and microphone is handed to the sender. */
  allowSending(allowed: boolean): void {
    this.#sendingAllowed = allowed;
    for (const track of Object.values(this.#published)) {
      if (!track) continue;
      // At once: an own track that is not enabled gives black and silence while the sender is being emptied.
      if (!allowed) track.mediaStreamTrack.enabled = false;
      this.#enqueue(async () => {
        if (this.#sendingAllowed) {
          await track.resumeUpstream();
          track.mediaStreamTrack.enabled = !track.isMuted;
        } else {
          await track.pauseUpstream();
        }
      });
    }
  }

  /** Sends this device's track, or tells the others that it is off. Does nothing while sending is not allowed. */
  setTrack(kind: DeviceKind, media: MediaStreamTrack | undefined): void {
    this.#enqueue(async () => {
      if (!this.isConnected || !this.#sendingAllowed) return;
      const track = this.#published[kind];
      if (!track) {
        if (media) await this.#publish(kind, media);
      } else if (!media) {
        await track.mute();
      } else {
        if (track.mediaStreamTrack !== media) await track.replaceTrack(media, true);
        await track.unmute();
      }
    });
  }

  /** Encodes a key frame now, where the browser can; elsewhere receivers ask by PLI. */
  async keyFrame(): Promise<void> {
    const sender = this.#published.camera?.sender;
    if (!sender) return;
    const parameters = sender.getParameters();
    const options = { encodingOptions: parameters.encodings.map(() => ({ keyFrame: true })) };
    const set = sender.setParameters.bind(sender) as (p: RTCRtpSendParameters, o?: object) => Promise<void>;
    // Not in every browser, and refused while a negotiation runs: the receiver asks again.
    await set(parameters, options).catch(() => undefined);
  }

  /** Sends a sealed packet to one member. */
  async sendData(identity: string, packet: Bytes): Promise<void> {
    if (!this.isConnected || !this.#members.has(identity)) return;
    const destinationIdentities = [identity];
    await this.#room.localParticipant.publishData(packet, { reliable: true, topic: dataTopic, destinationIdentities });
  }

  /** What has been received from a member so far on this connection. */
  async counters(identity: string): Promise<Counters> {
    const counters = noCounters();
    for (const publication of this.#publicationsOf(identity)) {
      const stats = await publication.track?.getRTCStatsReport();
      if (stats) addStats(counters, stats.values() as Iterable<Record<string, unknown>>);
    }
    return counters;
  }

  /** Ends the connection; devices stay open, they belong to the page. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ring.detach();
    this.#room.removeAllListeners(RoomEvent.Disconnected);
    for (const track of Object.values(this.#published)) void track?.pauseUpstream().catch(() => undefined);
    void this.#room.disconnect(false).finally(() => this.#worker.terminate());
  }

  #listen(): void {
    this.#room
      .on(RoomEvent.TrackPublished, (publication, participant) => this.#subscribe(publication, participant))
      .on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
        if (!this.#accepts(publication, participant)) return;
        this.#events.subscribed(participant.identity, track);
      })
      .on(RoomEvent.TrackUnsubscribed, (track, _, participant) => {
        this.#events.unsubscribed(participant.identity, track);
      })
      .on(RoomEvent.TrackMuted, (publication, participant) => this.#mute(publication.source, participant.identity, true))
      .on(RoomEvent.TrackUnmuted, (publication, participant) =>
        this.#mute(publication.source, participant.identity, false),
      )
      .on(RoomEvent.DataReceived, (payload, participant, _, topic) => {
        if (topic !== dataTopic || !participant || !this.#members.has(participant.identity)) return;
        this.#events.data(participant.identity, payload);
      })
      .on(RoomEvent.Disconnected, () => {
        const first = !this.#closed;
        this.close();
        if (first) this.#events.lost();
      });
  }

  #mute(source: Track.Source, identity: string, muted: boolean): void {
    if (!this.#members.has(identity)) return;
    if (source === Track.Source.Camera) this.#events.muted(identity, 'camera', muted);
    if (source === Track.Source.Microphone) this.#events.muted(identity, 'microphone', muted);
  }

  #accepts(publication: RemoteTrackPublication, participant: RemoteParticipant): boolean {
    const source = publication.source;
    return (
      this.#members.has(participant.identity) &&
      publication.isEncrypted &&
      publication.trackInfo?.encryption === gcm &&
      (source === Track.Source.Camera || source === Track.Source.Microphone)
    );
  }

  #subscribe(publication: RemoteTrackPublication, participant: RemoteParticipant): void {
    if (this.#accepts(publication, participant)) {
      if (!publication.isDesired || !publication.isSubscribed) publication.setSubscribed(true);
      return;
    }
    publication.setSubscribed(false);
    if (this.#members.has(participant.identity)) this.#events.refused('a track that is not encrypted');
    else this.#events.refused('a track of somebody who is not a member');
  }

  #subscribeAll(): void {
    if (this.#room.state !== ConnectionState.Connected) return;
    for (const participant of this.#room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        this.#subscribe(publication as RemoteTrackPublication, participant);
      }
    }
  }

  #publicationsOf(identity: string): RemoteTrackPublication[] {
    const participant = this.#room.getParticipantByIdentity(identity);
    if (!participant || !this.#members.has(identity)) return [];
    return [...participant.trackPublications.values()] as RemoteTrackPublication[];
  }

  async #publish(kind: DeviceKind, media: MediaStreamTrack): Promise<void> {
    const track =
      kind === 'camera' ? new LocalVideoTrack(media, undefined, true) : new LocalAudioTrack(media, undefined, true);
    this.#published[kind] = track;
    try {
      await this.#room.localParticipant.publishTrack(track as LocalTrack, {
        source: kind === 'camera' ? Track.Source.Camera : Track.Source.Microphone,
      });
    } catch (error) {
      this.#published[kind] = undefined;
      throw error;
    }
    if (!this.#sendingAllowed) await track.pauseUpstream();
  }

  /** One change of own tracks at a time; a failed one does not stop the next. */
  #enqueue(change: () => Promise<void>): void {
    this.#queue = this.#queue.then(change).catch(() => this.#events.refused('an own track could not be sent'));
  }

  #violate(error: ViolationError): void {
    // Before anything that waits: nothing of the devices may be in a sender that lost its encryption.
    for (const track of Object.values(this.#published)) track?.mediaStreamTrack.stop();
    this.close();
    this.#events.violated(error);
  }
}
