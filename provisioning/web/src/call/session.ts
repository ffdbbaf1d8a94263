// The page's conductor: turns what a person presses into events, joins by the link, and starts and ends memberships.

import { fromBase64url } from '../agreement/bytes.ts';
import type { Role } from '../agreement/document.ts';
import type { Clinic } from '../trust/clinic.ts';
import { LevelMeter, Devices, type DeviceKind } from '../media/devices.ts';
import { join, JoinError, readLink, relayUrl, type Joined, type Link } from '../relay/join.ts';
import type { Membership } from './agreement.ts';
import type { Agreement } from './call.ts';
import { Call, type MakeConnection, type Over } from './call.ts';
import type { Actions, OwnMedia } from './screens.ts';
import { initial, reduce, type Event, type Notice, type State } from './state.ts';
import { View } from './view.ts';

export interface SessionOptions {
  readonly root: HTMLElement;
  readonly fragment: string;
  /** Resolves to what is missing, or undefined when this browser can keep a session private. */
  readonly support: () => Promise<'browser' | 'media' | undefined>;
  /** Fetches and checks the documents of the link's clinic. Throws when they do not hold. */
  readonly openClinic: (link: Link) => Promise<Clinic>;
  /** Makes a new endpoint. */
  readonly makeAgreement: (clinic: Clinic, membership: Membership) => Promise<Agreement>;
  readonly makeConnection: MakeConnection;
}

const roles: ReadonlySet<string> = new Set<Role>(['therapist', 'patient', 'guest']);
const kinds: readonly DeviceKind[] = ['camera', 'microphone'];

/** From this width on, the panel stands beside the picture without covering it. */
const wide = '(min-width: 70rem)';

export class Session implements Actions, OwnMedia {
  readonly #o: SessionOptions;
  readonly #devices: Devices;
  readonly #view: View;
  #state: State = initial;
  readonly #support: Promise<'browser' | 'media' | undefined>;
  #link: Link | undefined;
  #joined: Joined | undefined;
  #clinic: Clinic | undefined;
  #call: Call | undefined;
  #meter: LevelMeter | undefined;
  #starting = false;

  constructor(options: SessionOptions) {
    this.#o = options;
    this.#support = options.support();
    this.#devices = new Devices({ changed: (kind) => this.#deviceChanged(kind) });
    this.#view = new View(options.root, this, this);
  }

  async start(): Promise<void> {
    this.#view.draw(this.#state);
    try {
      this.#link = readLink(this.#o.fragment);
    } catch {
      this.#notice({ kind: 'bad' });
      return;
    }
    const missing = await this.#support;
    if (missing) this.#notice({ kind: missing });
  }

  get state(): State {
    return this.#state;
  }

  // OwnMedia

  track(kind: DeviceKind): MediaStreamTrack | undefined {
    return this.#devices.track(kind);
  }

  level(): number | undefined {
    return this.#meter?.read();
  }

  // Actions

  go(): void {
    this.dispatch({ t: 'go' });
    void this.#join().then((joined) => {
      const clinic = this.#clinic;
      if (!joined || !clinic) return;
      const demo = joined.demo || clinic.trust.demo;
      this.dispatch({ t: 'joined', room: joined.room, clinic: clinic.trust.name, demo });
    });
  }

  ask(wanted: readonly DeviceKind[]): void {
    for (const kind of kinds) this.dispatch({ t: 'want', kind, wanted: wanted.includes(kind) });
    this.dispatch({ t: 'asking' });
    void this.#open(wanted).then(() => this.dispatch({ t: 'asked' }));
  }

  pass(): void {
    // What did not open in the check is not asked for again when the room lets this person in.
    for (const kind of kinds) this.dispatch({ t: 'want', kind, wanted: this.#state.devices[kind].on });
    this.#devices.closeAll();
    this.dispatch({ t: 'passed' });
    void this.#membership();
  }

  want(kind: DeviceKind, wanted: boolean): void {
    this.dispatch({ t: 'want', kind, wanted });
    if (wanted) void this.#open([kind]);
    else this.#devices.close(kind);
  }

  again(): void {
    const notice = this.#state.notice;
    if (notice?.kind === 'join') {
      this.#state = initial;
      this.go();
      return;
    }
    this.dispatch({ t: 'again' });
    void this.#join().then((joined) => joined && this.#membership());
  }

  leave(): void {
    const inside = this.#state.screen === 'call' || this.#state.screen === 'securing';
    const call = this.#call;
    this.#call = undefined;
    this.#notice({ kind: inside ? 'left' : 'finished' });
    void call?.leave();
  }

  finish(): void {
    this.#notice({ kind: 'finished' });
  }

  panel(): void {
    this.dispatch({ t: 'panel' });
  }

  sound(): void {
    for (const audio of document.querySelectorAll('audio')) void audio.play().catch(() => undefined);
    this.dispatch({ t: 'sound', blocked: false });
  }

  /** The page goes away: nothing of the devices may stay open. */
  hide(): void {
    this.#call?.stop();
    this.#devices.closeAll();
  }

  wake(): void {
    this.#call?.wake();
  }

  dispatch(event: Event): void {
    const entering = this.#state.screen !== 'call';
    let state = reduce(this.#state, event);
    if (entering && state.screen === 'call') state = { ...state, panel: matchMedia(wide).matches };
    if (state === this.#state) return;
    this.#state = state;
    this.#view.draw(state);
  }

  #notice(notice: Notice): void {
    this.#devices.closeAll();
    this.dispatch({ t: 'notice', notice });
  }

  /** Joins by the link and opens the clinic's documents; shows why when that does not succeed. */
  async #join(): Promise<Joined | undefined> {
    if (await this.#support) return undefined;
    const link = this.#link!;
    try {
      this.#joined = await join(link);
    } catch (error) {
      this.#notice({ kind: 'join', why: error instanceof JoinError ? error.why : 'other' });
      return undefined;
    }
    try {
      this.#clinic = await this.#o.openClinic(link);
      return this.#joined;
    } catch {
      this.#notice({ kind: 'trust' });
      return undefined;
    }
  }

  async #open(wanted: readonly DeviceKind[]): Promise<void> {
    for (const { kind, trouble } of await this.#devices.open(wanted)) {
      this.dispatch({ t: 'device', kind, on: false, trouble });
    }
  }

  #deviceChanged(kind: DeviceKind): void {
    const track = this.#devices.track(kind);
    if (kind === 'microphone') {
      this.#meter?.close();
      this.#meter = track && this.#state.screen === 'ask' ? new LevelMeter(track) : undefined;
    }
    this.dispatch({ t: 'device', kind, on: track !== undefined });
    this.#call?.sendDevices();
  }

  /** Makes a new endpoint and knocks with it. */
  async #membership(): Promise<void> {
    if (this.#starting || this.#call) return;
    this.#starting = true;
    const joined = this.#joined!;
    try {
      const agreement = await this.#o.makeAgreement(this.#clinic!, membershipOf(joined));
      // The person may have left meanwhile.
      if (this.#state.screen !== 'waiting') return;
      this.#call = this.#newCall(this.#link!, joined, agreement);
      this.#call.start();
    } catch {
      this.#notice({ kind: 'trust' });
    } finally {
      this.#starting = false;
    }
  }

  #newCall(link: Link, joined: Joined, agreement: Agreement): Call {
    const call: Call = new Call({
      relayUrl: relayUrl(link),
      bearer: joined.bearer,
      agreement,
      labelOf: (D) => this.#clinic?.device(D)?.label,
      devices: this.#devices,
      wanted: () => kinds.filter((kind) => this.#state.devices[kind].wanted),
      dispatch: (event) => {
        if (this.#call === call) this.dispatch(event);
      },
      tile: (identity) => this.#view.tile(identity),
      makeConnection: this.#o.makeConnection,
      over: (how) => {
        if (this.#call !== call) return;
        this.#call = undefined;
        this.#over(how);
      },
    });
    return call;
  }

  #over(how: Over): void {
    if (how === 'restart') {
      // As before the room let this person in.
      this.#devices.closeAll();
      this.dispatch({ t: 'returned' });
      void this.#membership();
    } else if (how === 'stopped' || how === 'different') {
      this.dispatch({ t: 'stopped', different: how === 'different' });
    } else {
      this.#notice(how);
    }
  }
}

function membershipOf({ participant, session }: Joined): Membership {
  const { role, name } = participant;
  if (!roles.has(role)) throw new Error('this participant has no role in a session');
  return { sid: fromBase64url(session.sid), role: role as Membership['role'], name };
}
