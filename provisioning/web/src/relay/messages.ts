// The text messages of `alcove.relay.v1` on the page's side, as provisioning/hub/PROTOCOL.md states them. The hub is
// not trusted: every message is read by the strict JSON reader and refused when it carries a name nobody asked for.

import { MalformedError, utf8 } from '../agreement/bytes.ts';
import { Fields, parseJson } from '../trust/json.ts';

/** Who the hub says this page is. Shown nowhere but on the page itself: others are shown from signed documents. */
export interface Participant {
  readonly id: string;
  readonly role: string;
  readonly name: string;
}

/** Where and as whom to connect to LiveKit. */
export interface Admission {
  readonly url: string;
  readonly token: string;
  readonly identity: string;
}

export type FromHub =
  | {
      readonly t: 'welcome';
      readonly sid: string;
      readonly clinic: string;
      readonly participant: Participant;
      readonly room: string;
      readonly state: 'waiting' | 'admitted';
    }
  | { readonly t: 'waiting' | 'closed_room' | 'resync' }
  | ({ readonly t: 'admitted' | 'token' } & Admission)
  | { readonly t: 'refused' | 'removed' | 'ended'; readonly reason: string }
  | { readonly t: 'error'; readonly error: string; readonly message: string }
  | { readonly t: 'pong'; readonly n: number };

export type ToHub =
  | { readonly t: 'hello'; readonly bearer: string }
  | { readonly t: 'knock'; readonly d: string }
  | { readonly t: 'token' | 'leave' }
  | { readonly t: 'ping'; readonly n: number };

export function readParticipant(f: Fields): Participant {
  const participant = { id: f.string('id'), role: f.string('role'), name: f.string('name') };
  f.end();
  return participant;
}

function readWelcome(f: Fields): FromHub {
  const room = f.object('room');
  const label = room.string('label');
  room.end();
  const state = f.string('state');
  if (state !== 'waiting' && state !== 'admitted') throw new MalformedError('welcome: unknown state');
  return {
    t: 'welcome',
    sid: f.string('sid'),
    clinic: f.string('clinic'),
    participant: readParticipant(f.object('participant')),
    room: label,
    state,
  };
}

function readBody(t: string, f: Fields): FromHub {
  switch (t) {
    case 'welcome':
      return readWelcome(f);
    case 'waiting':
    case 'closed_room':
    case 'resync':
      return { t };
    case 'admitted':
    case 'token':
      return { t, url: f.string('url'), token: f.string('token'), identity: f.string('identity') };
    case 'refused':
    case 'removed':
    case 'ended':
      return { t, reason: f.optionalString('reason') };
    case 'error':
      return { t, error: f.string('error'), message: f.optionalString('message') };
    case 'pong':
      return { t, n: f.integer('n') };
    default:
      throw new MalformedError(`relay message of unknown kind ${JSON.stringify(t)}`);
  }
}

/** Reads one text message of the hub. Throws MalformedError. */
export function readFromHub(text: string): FromHub {
  const f = new Fields(parseJson(utf8(text)), 'relay message');
  const message = readBody(f.string('t'), f);
  f.end();
  return message;
}
