// The endpoint document: fresh keys, and so a new document, per session and per page load.
//
//   doc = lp("alcove/doc/v1") ‖ clinic[32] ‖ sid[16] ‖ salt[32] ‖ u8 role ‖ lp(kemPub[1216]) ‖ sigPub[32] ‖ lp(name)
//   D   = H("alcove/dochash/v1", doc)
//   eid = unpadded base64url(D[0:16])            LiveKit identity
//
// The salt makes D a hiding commitment to the document. Layouts: daemon/e2ee/agreement.

import { concat, fromUtf8, H, lp, MalformedError, Reader, toBase64url, u8, utf8, type Bytes } from './bytes.ts';
import { kemPublicSize, newEndpointKeys, sigPublicSize, systemRandom, type EndpointKeys } from './suite.ts';

export type Role = 'device' | 'therapist' | 'patient' | 'guest';

const roleCodes: Readonly<Record<Role, number>> = { device: 1, therapist: 2, patient: 3, guest: 4 };

export function roleCode(role: Role): number {
  return roleCodes[role];
}

export function roleOf(code: number): Role {
  for (const role of Object.keys(roleCodes) as Role[]) if (roleCodes[role] === code) return role;
  throw new MalformedError(`unknown role ${code}`);
}

/** The session that everything here belongs to. */
export interface Session {
  /** SHA-256 of the clinic's first owner root. */
  readonly clinic: Bytes;
  readonly sid: Bytes;
}

export interface EndpointDocument extends Session {
  readonly salt: Bytes;
  readonly role: Role;
  readonly kemPublic: Bytes;
  readonly sigPublic: Bytes;
  /** As the endpoint wrote it: for screens, never a proof of who somebody is. */
  readonly name: string;
}

const docLabel = 'alcove/doc/v1';
const maxName = 64;
/** Largest possible document. */
export const maxDocument = 4 + docLabel.length + 32 + 16 + 32 + 1 + 4 + kemPublicSize + sigPublicSize + 4 + maxName;

// Controls, line and paragraph separators, changes of writing direction, byte order mark: a name must not be able to
// rearrange what a screen shows.
const refusedInNames = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/u;

function checkName(bytes: Bytes): string {
  const name = fromUtf8(bytes);
  if (refusedInNames.test(name)) throw new MalformedError('name holds a character that screens do not show');
  return name;
}

export function encodeDocument(d: EndpointDocument): Bytes {
  const name = utf8(d.name);
  if (name.length > maxName) throw new RangeError(`name has more than ${maxName} bytes`);
  checkName(name);
  return concat(
    lp(utf8(docLabel)),
    d.clinic,
    d.sid,
    d.salt,
    u8(roleCode(d.role)),
    lp(d.kemPublic),
    d.sigPublic,
    lp(name),
  );
}

/** Reads a document. Throws MalformedError for anything but its one encoding. */
export function parseDocument(bytes: Uint8Array): EndpointDocument {
  const r = new Reader(bytes);
  r.label(docLabel);
  const clinic = r.take(32);
  const sid = r.take(16);
  const salt = r.take(32);
  const role = roleOf(r.u8());
  const kemPublic = r.lp(kemPublicSize);
  if (kemPublic.length !== kemPublicSize) throw new MalformedError('KEM key has a wrong length');
  const sigPublic = r.take(sigPublicSize);
  const name = checkName(r.lp(maxName));
  r.end();
  return { clinic, sid, salt, role, kemPublic, sigPublic, name };
}

export function documentHash(doc: Bytes): Promise<Bytes> {
  return H('alcove/dochash/v1', doc);
}

/** The LiveKit identity of the endpoint with document hash D. */
export function identityOf(D: Bytes): string {
  return toBase64url(D.subarray(0, 16));
}

/** This end: its document and the keys that only it can use. */
export interface Endpoint {
  readonly document: EndpointDocument;
  /** The document's bytes. */
  readonly doc: Bytes;
  readonly D: Bytes;
  readonly eid: string;
  readonly keys: EndpointKeys;
}

/** Makes this page's endpoint: fresh keys and a fresh salt. */
export async function newEndpoint(session: Session, role: Exclude<Role, 'device'>, name: string): Promise<Endpoint> {
  return endpointOf(session, role, name, await newEndpointKeys(), systemRandom());
}

export async function endpointOf(
  session: Session,
  role: Role,
  name: string,
  keys: EndpointKeys,
  salt: Bytes,
): Promise<Endpoint> {
  if (session.clinic.length !== 32 || session.sid.length !== 16 || salt.length !== 32) {
    throw new RangeError('clinic, sid and salt have 32, 16 and 32 bytes');
  }
  const { clinic, sid } = session;
  const document: EndpointDocument = {
    clinic, sid, salt, role, name, kemPublic: keys.kemPublic, sigPublic: keys.sigPublic,
  };
  const doc = encodeDocument(document);
  const D = await documentHash(doc);
  return { document, doc, D, eid: identityOf(D), keys };
}

/** The longest beginning of a name that fits a document, with characters that screens do not show left out. */
export function fitName(name: string): string {
  let out = '';
  for (const c of name) {
    if (refusedInNames.test(c) || /\p{Surrogate}/u.test(c)) continue;
    if (utf8(out + c).length > maxName) break;
    out += c;
  }
  return out;
}
