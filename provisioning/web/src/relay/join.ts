// The link and the request that uses the invitation up. Opening the link changes nothing; joining is a POST after a
// press, so that mail scanners and link previews cannot consume an invitation.

import { fromHex, MalformedError, type Bytes } from '../agreement/bytes.ts';
import { Fields, parseJson } from '../trust/json.ts';
import { readParticipant, type Participant } from './messages.ts';

/** What a link's fragment says. The fragment never reaches a server. */
export interface Link {
  /** Origin of the hub's listener for people. */
  readonly hub: URL;
  readonly invitation: string;
  /** SHA-256 of the clinic's first owner root. */
  readonly clinic: Bytes;
}

const loopback = new Set(['localhost', '127.0.0.1', '[::1]']);

/** Reads `#h=…&i=…&c=…`. Throws MalformedError. */
export function readLink(fragment: string): Link {
  const p = new URLSearchParams(fragment.replace(/^#/, ''));
  const names = [...p.keys()].sort().join();
  if (names !== 'c,h,i') throw new MalformedError('link does not have exactly h, i and c');
  let hub: URL;
  try {
    hub = new URL(p.get('h')!);
  } catch {
    throw new MalformedError('link: h is not a URL');
  }
  const clear = hub.protocol === 'http:' && loopback.has(hub.hostname);
  if (hub.protocol !== 'https:' && !clear) throw new MalformedError('link: h is not https');
  if (hub.username || hub.search || hub.hash) throw new MalformedError('link: h is not an origin');
  const invitation = p.get('i')!;
  if (!/^[A-Za-z0-9_-]{16,128}$/.test(invitation)) throw new MalformedError('link: i is not an invitation');
  const clinic = fromHex(p.get('c')!);
  if (clinic.length !== 32) throw new MalformedError('link: c is not a hash');
  return { hub, invitation, clinic };
}

/** The relay's address at the hub of the link. */
export function relayUrl(link: Link): string {
  const url = new URL('/v1/relay', link.hub);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

export interface Joined {
  readonly bearer: string;
  readonly participant: Participant;
  readonly session: { readonly sid: string; readonly clinic: string; readonly starts: Date; readonly ends: Date };
  readonly room: string;
  readonly demo: boolean;
}

/** Why an invitation did not open: the codes of PROTOCOL.md, and `unreachable` for everything without an answer. */
export type JoinRefusal = 'unknown' | 'used' | 'over' | 'early' | 'slow_down' | 'unreachable' | 'other';

export class JoinError extends Error {
  override name = 'JoinError';
  readonly why: JoinRefusal;

  constructor(why: JoinRefusal) {
    super(`invitation did not open: ${why}`);
    this.why = why;
  }
}

const refusals: ReadonlySet<string> = new Set<JoinRefusal>(['unknown', 'used', 'over', 'early', 'slow_down']);

function readTime(text: string): Date {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) throw new MalformedError('join: malformed time');
  return time;
}

function readJoined(body: Uint8Array): Joined {
  const f = new Fields(parseJson(body), 'join');
  const session = f.object('session');
  const room = f.object('room');
  const joined = {
    bearer: f.string('bearer'),
    participant: readParticipant(f.object('participant')),
    session: {
      sid: session.string('sid'),
      clinic: session.string('clinic'),
      starts: readTime(session.string('starts')),
      ends: readTime(session.string('ends')),
    },
    room: room.string('label'),
    demo: f.optionalBoolean('demo'),
  };
  room.end();
  session.end();
  f.end();
  return joined;
}

function readRefusal(body: Uint8Array): JoinRefusal {
  try {
    const code = new Fields(parseJson(body), 'refusal').string('error');
    return refusals.has(code) ? (code as JoinRefusal) : 'other';
  } catch {
    return 'other';
  }
}

/** Uses the invitation up and binds this browser. Throws JoinError with the reason. */
export async function join(link: Link, request: typeof fetch = fetch): Promise<Joined> {
  let status: number;
  let body: Uint8Array;
  try {
    const response = await request(new URL('/v1/join', link.hub), {
      method: 'POST',
      // The cookie that comes back lets this browser, and no other, open the same link again.
      credentials: 'include',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ invitation: link.invitation }),
      referrerPolicy: 'no-referrer',
      cache: 'no-store',
    });
    status = response.status;
    body = new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new JoinError('unreachable');
  }
  if (status >= 500) throw new JoinError('unreachable');
  if (status !== 200) throw new JoinError(readRefusal(body));
  try {
    return readJoined(body);
  } catch {
    throw new JoinError('other');
  }
}
