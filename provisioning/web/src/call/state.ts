// What the call page knows, and how it changes: a pure function from state and event to state. Nothing here touches
// the page, the network or a device; views draw a state, the session makes events.
//
//   welcome ─ go on ─> joining ─> ask ─> check ─ go on ─> waiting ─ admitted ─> securing ─ epoch ─> call
//   any of them ─> notice (a page with one message and at most two ways on)
//
// People are taken from the accepted transcript alone. What LiveKit or the hub say about them is never shown.

import type { Role } from '../agreement/document.ts';
import type { DeviceKind, DeviceTrouble } from '../media/devices.ts';
import type { Report } from '../media/report.ts';
import type { JoinRefusal } from '../relay/join.ts';

/** A member of the accepted transcript, as the signed documents say. */
export interface Person {
  readonly identity: string;
  readonly role: Role;
  readonly name: string;
  /** How sure the transcript says it is: 1 the server's word, 2 the clinic's sign-in, 3 a key that the clinic signed. */
  readonly level: number;
  /** How much of that this page could verify itself. */
  readonly verified: number;
  readonly self: boolean;
  readonly compared: boolean;
  /** Name of the therapist whose word the comparison is; empty when it was made here. */
  readonly comparedBy: string;
}

/** What the room and this page agree on in the present epoch. */
export interface Agreed {
  readonly people: readonly Person[];
  readonly code: string;
  readonly pictures: readonly number[];
  readonly digits: string;
}

/** Why there is a page with one message. */
export type Notice =
  | { readonly kind: 'browser' | 'media' | 'bad' | 'trust' }
  | { readonly kind: 'join'; readonly why: JoinRefusal }
  | { readonly kind: 'stopped'; readonly different: boolean; readonly again: boolean }
  | { readonly kind: 'left' | 'finished' | 'ended' | 'removed' | 'refused' | 'elsewhere' };

export type Screen = 'welcome' | 'joining' | 'ask' | 'check' | 'waiting' | 'securing' | 'call' | 'notice';

export interface Device {
  /** The person wants it on. */
  readonly wanted: boolean;
  /** It is open now. */
  readonly on: boolean;
  readonly trouble: DeviceTrouble | undefined;
}

/** How the line to a session is: `short` from 2 s without it, `lost` from 5 s, `long` from 30 s. */
export type Line = 'good' | 'short' | 'lost' | 'long';

/** What the page has from one other member. */
export interface Remote {
  readonly picture: boolean;
  readonly pictureMuted: boolean;
  readonly report: Report | undefined;
}

export interface State {
  readonly screen: Screen;
  readonly notice: Notice | undefined;
  /** The browser's question about devices is open. */
  readonly asking: boolean;
  readonly room: string;
  /** The clinic's name, from its signed owner root. */
  readonly clinic: string;
  readonly demo: boolean;
  readonly devices: Readonly<Record<DeviceKind, Device>>;
  readonly lobby: 'sending' | 'open' | 'closed';
  /** The room began anew in the middle of things, so this person waits once more. */
  readonly returned: boolean;
  readonly relay: boolean;
  readonly agreed: Agreed | undefined;
  /** Media may leave the page now, and somebody is ready to receive it. */
  readonly sending: boolean;
  readonly line: Line;
  readonly remotes: Readonly<Record<string, Remote>>;
  readonly soundBlocked: boolean;
  readonly panel: boolean;
  readonly stops: number;
}

export type Event =
  | { readonly t: 'go' | 'asking' | 'passed' | 'waiting' | 'closed_room' | 'admitted' | 'again' | 'returned' | 'panel' }
  | { readonly t: 'joined'; readonly room: string; readonly clinic: string; readonly demo: boolean }
  | { readonly t: 'want'; readonly kind: DeviceKind; readonly wanted: boolean }
  | { readonly t: 'device'; readonly kind: DeviceKind; readonly on: boolean; readonly trouble?: DeviceTrouble }
  | { readonly t: 'asked' }
  | { readonly t: 'relay'; readonly up: boolean }
  | { readonly t: 'agreed'; readonly agreed: Agreed }
  | { readonly t: 'compared'; readonly identity: string; readonly by: string }
  | { readonly t: 'sending'; readonly allowed: boolean }
  | { readonly t: 'line'; readonly line: Line }
  | { readonly t: 'remote'; readonly identity: string; readonly change: Partial<Remote> }
  | { readonly t: 'sound'; readonly blocked: boolean }
  | { readonly t: 'stopped'; readonly different: boolean }
  | { readonly t: 'notice'; readonly notice: Notice };

const closed: Device = { wanted: true, on: false, trouble: undefined };
const nothing: Remote = { picture: false, pictureMuted: false, report: undefined };

export const initial: State = {
  screen: 'welcome',
  notice: undefined,
  asking: false,
  room: '',
  clinic: '',
  demo: false,
  devices: { camera: closed, microphone: closed },
  lobby: 'sending',
  returned: false,
  relay: true,
  agreed: undefined,
  sending: false,
  line: 'good',
  remotes: {},
  soundBlocked: false,
  panel: false,
  stops: 0,
};

/** What is known of the people and the line is forgotten with the call. */
function outside(state: State): State {
  return { ...state, agreed: undefined, sending: false, line: 'good', remotes: {}, soundBlocked: false };
}

function notice(state: State, notice: Notice): State {
  return { ...outside(state), screen: 'notice', notice, asking: false };
}

function withDevice(state: State, kind: DeviceKind, change: Partial<Device>): State {
  return { ...state, devices: { ...state.devices, [kind]: { ...state.devices[kind], ...change } } };
}

function agreed(state: State, now: Agreed): State {
  const remotes: Record<string, Remote> = {};
  for (const p of now.people) if (!p.self) remotes[p.identity] = state.remotes[p.identity] ?? nothing;
  return { ...state, screen: 'call', agreed: now, remotes };
}

function compared(state: State, identity: string, by: string): State {
  if (!state.agreed) return state;
  const people = state.agreed.people.map((p) =>
    p.identity === identity ? { ...p, compared: true, comparedBy: by } : p,
  );
  return { ...state, agreed: { ...state.agreed, people } };
}

/** Frames come thirty times a second; only what is new is drawn. */
function unchanged(remote: Remote, change: Partial<Remote>): boolean {
  return (Object.keys(change) as (keyof Remote)[]).every((name) => remote[name] === change[name]);
}

function lobby(state: State, lobby: State['lobby']): State {
  return state.screen === 'waiting' ? { ...state, lobby } : state;
}

/** The next state. An event that does not fit the screen changes nothing: a late answer must not bring a page back. */
export function reduce(state: State, event: Event): State {
  if (state.screen === 'notice' && event.t !== 'again' && event.t !== 'notice' && event.t !== 'device') return state;
  switch (event.t) {
    case 'go':
      return state.screen === 'welcome' ? { ...state, screen: 'joining' } : state;
    case 'joined':
      if (state.screen !== 'joining') return state;
      return { ...state, screen: 'ask', room: event.room, clinic: event.clinic, demo: event.demo };
    case 'asking':
      return { ...state, asking: true };
    case 'asked':
      return { ...state, asking: false, screen: state.screen === 'ask' ? 'check' : state.screen };
    case 'want':
      return withDevice(state, event.kind, { wanted: event.wanted, trouble: undefined });
    case 'device':
      return withDevice(state, event.kind, { on: event.on, trouble: event.trouble });
    case 'passed':
      return state.screen === 'check' ? { ...state, screen: 'waiting', lobby: 'sending' } : state;
    case 'waiting':
      return lobby(state, 'open');
    case 'closed_room':
      return lobby(state, 'closed');
    case 'admitted':
      // The room may have let this person in, and agreed, before the hub had a token to say so with.
      return state.screen === 'waiting' ? { ...state, screen: state.agreed ? 'call' : 'securing' } : state;
    case 'relay':
      return { ...state, relay: event.up };
    case 'agreed':
      if (state.screen === 'waiting') return { ...agreed(state, event.agreed), screen: 'waiting' };
      return state.screen === 'securing' || state.screen === 'call' ? agreed(state, event.agreed) : state;
    case 'compared':
      return compared(state, event.identity, event.by);
    case 'sending':
      return { ...state, sending: event.allowed };
    case 'line':
      return state.line === event.line ? state : { ...state, line: event.line };
    case 'remote': {
      const remote = state.remotes[event.identity];
      if (!remote || unchanged(remote, event.change)) return state;
      return { ...state, remotes: { ...state.remotes, [event.identity]: { ...remote, ...event.change } } };
    }
    case 'sound':
      return { ...state, soundBlocked: event.blocked };
    case 'panel':
      return { ...state, panel: !state.panel };
    case 'stopped': {
      const stops = state.stops + 1;
      return { ...notice(state, { kind: 'stopped', different: event.different, again: stops < 2 }), stops };
    }
    case 'notice':
      return notice(state, event.notice);
    case 'again':
    case 'returned':
      return { ...outside(state), screen: 'waiting', notice: undefined, lobby: 'sending', returned: event.t === 'returned' };
  }
}

/** The other members, the room first and then by name. */
export function others(state: State): readonly Person[] {
  const people = (state.agreed?.people ?? []).filter((p) => !p.self);
  return people.sort((a, b) => Number(b.role === 'device') - Number(a.role === 'device') || a.name.localeCompare(b.name));
}

/** Whose picture is shown large: the room's. */
export function mainPerson(state: State): Person | undefined {
  return others(state)[0];
}

export type Confirmation = 'confirmed' | 'checked' | 'checked_by' | 'signed_in' | 'server_only';

/** How sure this page is of a person (journeys 2.3). */
export function confirmationOf(p: Person): Confirmation {
  if (p.level >= 3 && p.verified >= 3) return 'confirmed';
  if (p.compared) return p.comparedBy ? 'checked_by' : 'checked';
  return p.level >= 2 ? 'signed_in' : 'server_only';
}
