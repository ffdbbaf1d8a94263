// One membership of a session, from the knock to the end: ties relay, key agreement, LiveKit and devices together. It
// lives as long as one endpoint document; a page that starts again (reload, "try again") makes a new one.
//
// The order of things is the agreement's: its effects are carried out one by one as they come. What they forbid is
// forbidden here at once: without an accepted epoch there are no members, so nothing is subscribed, attached or opened,
// and without its permission no track is handed to a sender.

import type { RemoteTrack } from 'livekit-client';
import type { Effect, Epoch, Reason } from '../agreement/api.ts';
import { equal, toHex, type Bytes } from '../agreement/bytes.ts';
import type { Connection, ConnectionEvents } from '../media/connection.ts';
import type { DeviceKind, Devices } from '../media/devices.ts';
import { KeyRing } from '../media/keys.ts';
import { Line } from '../media/line.ts';
import { difference, noCounters, type Counters, type DataMessage } from '../media/report.ts';
import { RelayClient, type RelayEvents, type Socket } from '../relay/client.ts';
import type { FromHub } from '../relay/messages.ts';
import { Channel } from './channel.ts';
import { Health } from './health.ts';
import type { Agreed, Event, Notice, Person } from './state.ts';
import type { Tile } from './stage.ts';

/** The key agreement as the page drives it; every call returns what has to be done, in order. */
export interface Agreement {
  readonly D: Bytes;
  readonly eid: string;
  handle(now: number, message: Uint8Array): Promise<readonly Effect[]>;
  tick(now: number): Promise<readonly Effect[]>;
  nextDeadline(): number | undefined;
  online(now: number, up: boolean): Promise<readonly Effect[]>;
  resend(): readonly Bytes[];
  leave(now: number): Promise<readonly Effect[]>;
}

/** A connection to LiveKit as a call uses it. */
export type CallConnection = Pick<
  Connection,
  | 'isConnected'
  | 'connect'
  | 'setMembers'
  | 'allowSending'
  | 'setTrack'
  | 'keyFrame'
  | 'sendData'
  | 'counters'
  | 'close'
>;

export type MakeConnection = (own: string, ring: KeyRing, events: ConnectionEvents) => CallConnection;

export interface CallOptions {
  readonly relayUrl: string;
  readonly bearer: string;
  readonly agreement: Agreement;
  /** The clinic's own name of a room whose proof was verified. */
  readonly labelOf: (D: Bytes) => string | undefined;
  readonly devices: Devices;
  /** What the person wants open once admitted. */
  readonly wanted: () => readonly DeviceKind[];
  readonly dispatch: (event: Event) => void;
  readonly tile: (identity: string) => Tile | undefined;
  /** Makes a connection that has never been used, with a worker and a key provider of its own. */
  readonly makeConnection: MakeConnection;
  /** The membership is over: everything is closed when this is called. */
  readonly over: (how: Over) => void;
  readonly socket?: (url: string, protocol: string) => Socket;
}

/** How a membership ends: with a notice, because something was wrong, or only to begin again with a new document. */
export type Over = Notice | 'stopped' | 'different' | 'restart';

/** A viewer without a picture this long after subscribing asks the sender for a key frame. */
const keyFrameAfter = 300;
/** One key frame on request in this time, whoever asks. */
const keyFrameEvery = 400;
const reportEvery = 1000;

/** A picture that has stood still this long is not shown any more. */
const frozenAfter = 2000;
/** A picture moves if its last frame is not older than this. */
const flowing = 700;
/** How long after a cut a connection of before it is watched for standing still. */
const settlingTime = 4000;
/** How often pictures and line are looked at. */
const lookEvery = 250;

interface Subscribed {
  readonly track: RemoteTrack;
  /** When the last frame was shown; undefined before the first. */
  frameAt?: number;
  /** When a key frame was last asked for, or the track was subscribed to. */
  askedAt: number;
}

export class Call {
  readonly #o: CallOptions;
  readonly #relay: RelayClient;
  readonly #ring: KeyRing;
  readonly #channel = new Channel();
  readonly #line: Line<CallConnection>;
  readonly #health = new Health(performance.now());
  #epoch: Epoch | undefined;
  #members: ReadonlySet<string> = new Set();
  #sending = false;
  #admitted = false;
  #over = false;
  #queue: Promise<void> = Promise.resolve();
  #tracks = new Map<string, Subscribed>();
  #counters = new Map<string, Counters>();
  #counted = performance.now();
  #lastArrival = 0;
  #upAt = -Infinity;
  #connectedAt = -Infinity;
  #lastKeyFrame = -Infinity;
  #deadline: ReturnType<typeof setTimeout> | undefined;
  #every: readonly ReturnType<typeof setInterval>[] = [];

  constructor(options: CallOptions) {
    this.#o = options;
    this.#ring = new KeyRing(options.agreement.eid);
    this.#relay = new RelayClient({
      url: options.relayUrl,
      bearer: options.bearer,
      events: this.#relayEvents(),
      ...(options.socket ? { connect: options.socket } : {}),
    });
    this.#line = new Line<CallConnection>({
      make: () => this.#connection(),
      requestToken: () => this.#relay.send({ t: 'token' }),
      reachable: () => this.#relay.isUp,
      connected: (connection) => this.#connected(connection),
      disconnected: () => this.#disconnected(),
    });
  }

  start(): void {
    this.#relay.start();
    this.#every = [setInterval(() => void this.#second(), reportEvery), setInterval(() => this.#look(), lookEvery)];
    this.#schedule();
  }

  /** The network says that it is back. */
  wake(): void {
    this.#relay.wake();
  }

  /** Leaves for good and tells everybody. */
  async leave(): Promise<void> {
    if (this.#over) return;
    this.#silence();
    await this.#run(() => this.#o.agreement.leave(performance.now())).catch(() => undefined);
    this.#relay.send({ t: 'leave' });
    this.stop();
  }

  /** Closes everything; says nothing to anybody. */
  stop(): void {
    if (this.#over) return;
    this.#silence();
    this.#over = true;
    for (const timer of this.#every) clearInterval(timer);
    clearTimeout(this.#deadline);
    for (const key of [...this.#tracks.keys()]) this.#detach(key);
    this.#line.stop();
    this.#relay.stop();
  }

  /** A device was opened or closed: sends what is there now. */
  sendDevices(): void {
    const connection = this.#line.current;
    if (!connection || !this.#sending) return;
    for (const kind of ['camera', 'microphone'] as const) connection.setTrack(kind, this.#o.devices.track(kind));
  }

  #relayEvents(): RelayEvents {
    return {
      control: (message) => this.#control(message),
      relayed: (message) => this.#do((now) => this.#o.agreement.handle(now, message)),
      up: () => {
        this.#o.dispatch({ t: 'relay', up: true });
        this.#do((now) => this.#o.agreement.online(now, true));
        this.#resend();
        this.#upAt = performance.now();
        if (this.#admitted) this.#line.reachableAgain(this.#flows());
      },
      down: () => {
        this.#o.dispatch({ t: 'relay', up: false });
        this.#do((now) => this.#o.agreement.online(now, false));
      },
      stopped: () => this.#end({ kind: 'elsewhere' }),
      malformed: () => undefined,
    };
  }

  #control(message: FromHub): void {
    switch (message.t) {
      case 'welcome':
        this.#relay.send({ t: 'knock', d: toHex(this.#o.agreement.D) });
        return;
      case 'waiting':
      case 'closed_room':
        this.#o.dispatch({ t: message.t });
        return;
      case 'admitted':
      case 'token':
        this.#admit();
        void this.#line.admitted(message);
        return;
      case 'resync':
        this.#resend();
        return;
      case 'removed':
        // A room that came back with a new document takes nobody over: this page knocks with a new one too.
        this.#end(message.reason === 'room_restarted' ? 'restart' : { kind: 'removed' });
        return;
      case 'refused':
      case 'ended':
        this.#end({ kind: message.t });
        return;
      case 'error':
        if (message.error === 'media_unavailable') this.#line.retry();
        return;
      case 'pong':
        return;
    }
  }

  #admit(): void {
    if (this.#admitted) return;
    this.#admitted = true;
    this.#o.dispatch({ t: 'admitted' });
    const wanted = this.#o.wanted();
    void this.#o.devices.open(wanted).then((troubles) => {
      if (this.#over) this.#o.devices.closeAll();
      for (const { kind, trouble } of troubles) this.#o.dispatch({ t: 'device', kind, on: false, trouble });
    });
  }

  #resend(): void {
    for (const message of this.#o.agreement.resend()) this.#relay.relay(message);
  }

  /** Runs one step of the agreement after the former one and carries its effects out. */
  #run(step: () => Promise<readonly Effect[]>): Promise<void> {
    const result = this.#queue.then(async () => {
      if (this.#over) return;
      for (const effect of await step()) this.#carryOut(effect);
    });
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #do(step: (now: number) => Promise<readonly Effect[]>): void {
    void this.#run(() => step(performance.now())).then(
      () => this.#schedule(),
      // The agreement could not even judge: the page must not go on under an unknown state.
      () => this.#end('stopped'),
    );
  }

  #schedule(): void {
    clearTimeout(this.#deadline);
    const at = this.#over ? undefined : this.#o.agreement.nextDeadline();
    if (at === undefined) return;
    this.#deadline = setTimeout(() => this.#do((now) => this.#o.agreement.tick(now)), Math.max(0, at - performance.now()));
  }

  #carryOut(effect: Effect): void {
    if (this.#over) return;
    switch (effect.t) {
      case 'send':
        this.#relay.relay(effect.message);
        return;
      case 'epoch':
        this.#enter(effect.epoch);
        return;
      case 'sending':
        this.#allow(effect.allowed);
        return;
      case 'sendKey':
        this.#ring.send(effect.key.index, effect.key.frames);
        this.#channel.send(effect.key.data);
        void this.#keyFrame();
        return;
      case 'dropSendKey':
        this.#allow(false);
        this.#channel.send(undefined);
        void this.#ring.stopSending();
        return;
      case 'recvKey':
        this.#ring.receive(effect.eid, effect.key.index, effect.key.frames);
        this.#channel.receive(effect.eid, effect.key.data);
        return;
      case 'retireRecv':
        this.#channel.retire(effect.eid, effect.gen);
        void this.#ring.retire(effect.eid, effect.index);
        return;
      case 'keyFrame':
        void this.#keyFrame();
        return;
      case 'compared':
        this.#compared(effect.D, effect.by);
        return;
      case 'askGuest':
      case 'roundFailed':
        return;
      case 'ended':
        // Leaving was this page's own wish: `leave` closes everything itself.
        if (effect.reason === 'left') return;
        this.#end({ kind: effect.reason === 'removed' ? 'removed' : 'ended' });
        return;
      case 'failed':
        this.#failed(effect.reason);
        return;
    }
  }

  #failed(reason: Reason): void {
    this.#end(reason === 'different' ? 'different' : 'stopped');
  }

  #enter(epoch: Epoch): void {
    this.#epoch = epoch;
    this.#members = new Set(epoch.members.filter((m) => !m.self).map((m) => m.eid));
    this.#o.dispatch({ t: 'agreed', agreed: agreedOf(epoch, this.#o.labelOf) });
    for (const key of [...this.#tracks.keys()]) {
      if (!this.#members.has(identityOfKey(key))) this.#detach(key);
    }
    this.#line.current?.setMembers(this.#members);
  }

  #compared(D: Bytes, by: Bytes | undefined): void {
    const members = this.#epoch?.members ?? [];
    const member = members.find((m) => equal(m.D, D));
    const therapist = by && members.find((m) => equal(m.D, by));
    if (member) this.#o.dispatch({ t: 'compared', identity: member.eid, by: therapist?.name ?? '' });
  }

  #allow(allowed: boolean): void {
    this.#sending = allowed;
    this.#o.dispatch({ t: 'sending', allowed });
    this.#line.current?.allowSending(allowed);
    if (allowed) this.sendDevices();
  }

  /** Stops sending at once and closes the devices. */
  #silence(): void {
    this.#allow(false);
    this.#o.devices.closeAll();
  }

  #connection(): CallConnection {
    const connection = this.#o.makeConnection(this.#o.agreement.eid, this.#ring, this.#connectionEvents());
    connection.setMembers(this.#members);
    connection.allowSending(this.#sending);
    return connection;
  }

  #connectionEvents(): ConnectionEvents {
    return {
      subscribed: (identity, track) => this.#attach(identity, track),
      unsubscribed: (identity, track) => this.#detach(keyOf(identity, track.kind), track),
      muted: (identity, kind, muted) => {
        if (kind === 'camera') this.#o.dispatch({ t: 'remote', identity, change: { pictureMuted: muted } });
      },
      data: (identity, packet) => void this.#data(identity, packet),
      refused: () => undefined,
      lost: () => this.#line.lost(),
      violated: () => this.#end('stopped'),
    };
  }

  /** Whether media comes in over the present connection just now. */
  #flows(): boolean {
    const now = performance.now();
    const pictures = [...this.#tracks.values()].filter(({ track }) => track.kind === 'video' && !track.isMuted);
    if (pictures.length === 0 || document.hidden) return now - this.#lastArrival < 1500;
    return pictures.every(({ frameAt = 0 }) => now - frameAt < flowing);
  }

  /**
   * After a cut the first packets may fit what was there before, and then the picture stands still for 3 s, until the
   * browser asks for a key frame: a new connection is faster.
   */
  #lookAfterCut(now: number): void {
    const settling = now - this.#upAt < settlingTime && now - this.#connectedAt > settlingTime;
    if (settling && this.#relay.isUp && this.#line.current && !this.#flows()) this.#line.reachableAgain(false);
  }

  #connected(connection: CallConnection): void {
    // Members and permission may have changed while it connected.
    connection.setMembers(this.#members);
    connection.allowSending(this.#sending);
    this.#counters.clear();
    this.#connectedAt = performance.now();
    this.sendDevices();
  }

  #disconnected(): void {
    for (const key of [...this.#tracks.keys()]) this.#detach(key);
  }

  #attach(identity: string, track: RemoteTrack): void {
    const tile = this.#members.has(identity) ? this.#o.tile(identity) : undefined;
    if (!tile || this.#over) return;
    const key = keyOf(identity, track.kind);
    this.#detach(key);
    const subscribed: Subscribed = { track, askedAt: performance.now() };
    this.#tracks.set(key, subscribed);
    if (track.kind === 'audio') this.#hear(track, tile.audio);
    else this.#watch(identity, subscribed, tile.video);
  }

  #hear(track: RemoteTrack, audio: HTMLAudioElement): void {
    track.attach(audio);
    void audio.play().then(
      () => this.#o.dispatch({ t: 'sound', blocked: false }),
      () => this.#o.dispatch({ t: 'sound', blocked: true }),
    );
  }

  /** Shows a track from its first frame on. */
  #watch(identity: string, subscribed: Subscribed, video: HTMLVideoElement): void {
    const key = keyOf(identity, 'video');
    subscribed.track.attach(video);
    const frame = () => {
      if (this.#tracks.get(key) !== subscribed) return;
      const now = performance.now();
      subscribed.frameAt = now;
      this.#health.good(now);
      this.#o.dispatch({ t: 'remote', identity, change: { picture: true, pictureMuted: false } });
      video.requestVideoFrameCallback(frame);
    };
    video.requestVideoFrameCallback(frame);
  }

  /** Takes pictures that stand still off the page, and asks for key frames: each costs a browser 3 s otherwise. */
  #look(): void {
    const now = performance.now();
    for (const [key, subscribed] of this.#tracks) {
      // A page in the background is given no frames to show.
      if (subscribed.track.kind !== 'video' || subscribed.track.isMuted || document.hidden) continue;
      const identity = identityOfKey(key);
      const since = subscribed.frameAt ?? subscribed.askedAt;
      if (now - since >= frozenAfter) this.#o.dispatch({ t: 'remote', identity, change: { picture: false } });
      const late = Math.max(subscribed.frameAt ?? 0, subscribed.askedAt) + keyFrameAfter <= now;
      if (!late || (subscribed.frameAt !== undefined && now - subscribed.frameAt < 2 * keyFrameAfter)) continue;
      subscribed.askedAt = now;
      void this.#send(identity, { t: 'keyframe' });
    }
    if (this.#admitted) this.#lookAfterCut(now);
    if (this.#epoch) this.#o.dispatch({ t: 'line', line: this.#health.line(now) });
  }

  #detach(key: string, only?: RemoteTrack): void {
    const subscribed = this.#tracks.get(key);
    if (!subscribed || (only && subscribed.track !== only)) return;
    this.#tracks.delete(key);
    for (const element of subscribed.track.detach()) element.srcObject = null;
    if (subscribed.track.kind === 'video') {
      this.#o.dispatch({ t: 'remote', identity: identityOfKey(key), change: { picture: false } });
    }
  }

  async #send(identity: string, message: DataMessage): Promise<void> {
    if (!this.#sending) return;
    const packet = await this.#channel.seal(message).catch(() => undefined);
    if (packet) await this.#line.current?.sendData(identity, packet).catch(() => undefined);
  }

  async #data(identity: string, packet: Uint8Array): Promise<void> {
    let message: DataMessage;
    try {
      message = await this.#channel.open(identity, packet);
    } catch {
      return; // not authentic, or under a key that has gone
    }
    if (!this.#members.has(identity)) return;
    if (message.t === 'keyframe') void this.#keyFrame();
    else this.#o.dispatch({ t: 'remote', identity, change: { report: message } });
  }

  async #keyFrame(): Promise<void> {
    const now = performance.now();
    if (now - this.#lastKeyFrame < keyFrameEvery) return;
    this.#lastKeyFrame = now;
    await this.#line.current?.keyFrame();
  }

  /** Each second: reports to the members, and how the line is. */
  async #second(): Promise<void> {
    const connection = this.#line.current;
    const now = performance.now();
    const seconds = (now - this.#counted) / 1000;
    this.#counted = now;
    let arrived = false;
    for (const identity of connection ? this.#members : []) {
      const counters = await connection!.counters(identity);
      const report = difference(this.#counters.get(identity) ?? noCounters(), counters, seconds);
      this.#counters.set(identity, counters);
      arrived ||= report.bps > 0;
      void this.#send(identity, { t: 'report', ...report });
    }
    if (this.#over || !this.#epoch) return;
    if (arrived) this.#lastArrival = now;
    // A member who sends nothing at all is not a broken line as long as both ways to the clinic are there.
    const quiet = connection?.isConnected === true && this.#tracks.size === 0 && this.#relay.isUp;
    if (arrived || quiet) this.#health.good(now);
  }

  #end(how: Over): void {
    if (this.#over) return;
    this.stop();
    this.#o.over(how);
  }
}

function keyOf(identity: string, kind: string): string {
  return `${kind} ${identity}`;
}

function identityOfKey(key: string): string {
  return key.slice(key.indexOf(' ') + 1);
}

/** What screens show of an epoch. */
export function agreedOf(epoch: Epoch, labelOf: CallOptions['labelOf'] = () => undefined): Agreed {
  const nameOf = (D: Bytes | undefined) => epoch.members.find((m) => D && equal(m.D, D))?.name ?? '';
  const people = epoch.members.map(
    (m): Person => ({
      identity: m.eid,
      role: m.role,
      name: (m.role === 'device' ? labelOf(m.D) : undefined) ?? m.name,
      level: m.level,
      verified: m.verified,
      self: m.self,
      compared: m.compared,
      comparedBy: nameOf(m.comparedBy),
    }),
  );
  return { people, code: epoch.code, pictures: epoch.pictures, digits: epoch.digits };
}
