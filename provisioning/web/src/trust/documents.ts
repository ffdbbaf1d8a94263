// A clinic's signed documents, as far as a page needs them, judged by the rules of provisioning/document: owner roots
// from the first, whose payload's hash is the clinic and stands in the link; roster and config under the last of them.
//
// A page remembers nothing between visits: a hub that withholds newer documents keeps the older ones in force until
// they expire.

import { equal, fromBase64url, MalformedError, toHex, type Bytes } from '../agreement/bytes.ts';
import { ownerKeySize } from './composite.ts';
import { countSigners, ownerKey, payloadHash, readHash, RefusedError, verifyEach, type Envelope, type OwnerKey } from './envelope.ts';
import { Fields, parseJson } from './json.ts';

type DocumentType = 'owner-root' | 'roster' | 'config';

export function payloadType(type: DocumentType): string {
  return `application/vnd.alcove.${type}.v1+json`;
}

const neededRoles = ['root', 'roster', 'people', 'config'];
const maxRoleKeys = 8;
const maxHubPins = 4;
const recoveryKeySize = 1216;
/** How far in the future a document may be dated. */
const maxSkewMs = 24 * 3600 * 1000;

interface OwnerRole {
  readonly threshold: number;
  readonly keys: readonly OwnerKey[];
}

/** A verified owner root, together with the clinic that it belongs to. Only verifyOwnerRoots makes one. */
export interface Trust {
  /** Hex SHA-256 of the first owner root's payload: the clinic's name. */
  readonly clinic: string;
  /** The clinic's name, for people. */
  readonly name: string;
  readonly version: number;
  /** A demonstration. */
  readonly demo: boolean;
  readonly roles: ReadonlyMap<string, OwnerRole>;
}

interface OwnerRoot extends Omit<Trust, 'clinic'> {
  readonly owner: string;
  readonly issued: number;
  readonly expires: number;
}

/** Follows the owner roots from the clinic's first to the last, which must not have expired. Throws. */
export async function verifyOwnerRoots(clinic: string, chain: readonly Envelope[], now: number): Promise<Trust> {
  const [first] = chain;
  if (!first || (await payloadHash(first)) !== clinic) {
    throw new RefusedError('the first owner root is not the one that names this clinic');
  }
  let last: OwnerRoot | undefined;
  for (const envelope of chain) {
    const next = await readOwnerRoot(envelope);
    await checkSuccessor(clinic, envelope, last, next);
    last = next;
  }
  requireTimely(last!.issued, last!.expires, now);
  const { name, version, demo, roles } = last!;
  return { clinic, name, version, demo, roles };
}

async function checkSuccessor(clinic: string, e: Envelope, before: OwnerRoot | undefined, next: OwnerRoot): Promise<void> {
  if (next.version !== (before?.version ?? 0) + 1) throw new RefusedError('the chain of owner roots is broken');
  if (next.version > 1 && next.owner !== clinic) throw new RefusedError('owner root of another clinic');
  if (before && before.demo !== next.demo) throw new RefusedError('a demonstration cannot become a clinic');
  // The threshold of the old root and that of the new: neither can be left behind without the other's consent.
  const demanding = [next, ...(before ? [before] : [])].map((root) => root.roles.get('root')!);
  const signers = await verifyEach(e, demanding.flatMap((role) => role.keys));
  for (const role of demanding) requireThreshold(signers, role);
}

function requireThreshold(signers: ReadonlySet<string>, role: OwnerRole): void {
  const n = countSigners(signers, role.keys);
  if (n < role.threshold || n === 0) throw new RefusedError(`${n} of ${role.threshold} signatures`);
}

async function readOwnerRoot(envelope: Envelope): Promise<OwnerRoot> {
  requireType(envelope, 'owner-root');
  const f = new Fields(parseJson(envelope.payload), 'owner root');
  const version = f.integer('version');
  if (version < 1 || version > 0xffffffff) throw new MalformedError('owner root: version');
  // Absent in the first root, whose hash it is.
  const owner = version === 1 ? '' : readHash(f.string('owner'));
  const demo = f.boolean('demo');
  const name = requireText(f.string('clinic'), 1, 80);
  const roles = await readRoles(f);
  const pins = f.strings('hub_pins').map(readHash);
  const recovery = f.strings('recovery_keys').map(fromBase64url);
  const [issued, expires] = readTimes(f);
  f.end();
  if (pins.length > maxHubPins || recovery.length > maxRoleKeys) throw new MalformedError('owner root: too many entries');
  if (recovery.some((k) => k.length !== recoveryKeySize)) throw new MalformedError('owner root: recovery key');
  return { version, owner, demo, name, roles, issued, expires };
}

async function readRoles(f: Fields): Promise<ReadonlyMap<string, OwnerRole>> {
  const roles = new Map<string, OwnerRole>();
  // One key, one place: in two roles it would make the weaker as strong as the stronger.
  const used = new Set<string>();
  for (const [name, value] of f.entries('roles')) {
    const g = new Fields(value, `role ${name}`);
    const threshold = g.integer('threshold');
    const keys = await Promise.all(g.strings('keys').map((text) => ownerKey(fromBase64url(text))));
    g.end();
    requireName(name);
    if (keys.length > maxRoleKeys || threshold < 1 || threshold > keys.length) {
      throw new MalformedError(`role ${name}: threshold ${threshold} of ${keys.length} keys`);
    }
    for (const k of keys) {
      if (k.key.length !== ownerKeySize || used.has(k.id)) throw new MalformedError(`role ${name}: keys`);
      used.add(k.id);
    }
    roles.set(name, { threshold, keys });
  }
  for (const name of neededRoles) if (!roles.has(name)) throw new MalformedError(`role ${name} is missing`);
  return roles;
}

/** A room's box in the roster. */
export interface Device {
  readonly id: string;
  /** Name in links and on the command line. */
  readonly room: string;
  /** Name for people. */
  readonly label: string;
  /** P-256 public key of the room's proofs, DER SubjectPublicKeyInfo. */
  readonly signSpki: Bytes;
  readonly keyProtection: 'tpm' | 'host';
  readonly notAfter: number;
}

export interface Roster {
  readonly devices: readonly Device[];
}

/** Verifies a roster. A device that it does not list is revoked. Throws. */
export async function verifyRoster(trust: Trust, envelope: Envelope, now: number): Promise<Roster> {
  const f = await open(trust, 'roster', envelope, now);
  if (f.target !== 'all') throw new MalformedError('a roster is for all');
  const devices = f.fields.list('devices').map((value) => readDevice(new Fields(value, 'device')));
  f.fields.end();
  const seen = new Set<string>();
  for (const { device, tlsSpki } of devices) {
    for (const unique of [`id ${device.id}`, `key ${toHex(tlsSpki)}`, `key ${toHex(device.signSpki)}`]) {
      if (seen.has(unique)) throw new MalformedError(`device ${device.id}: its id or one of its keys appears twice`);
      seen.add(unique);
    }
  }
  return { devices: devices.map((d) => d.device) };
}

function readDevice(f: Fields): { device: Device; tlsSpki: Bytes } {
  const protection = f.string('key_protection');
  if (protection !== 'tpm' && protection !== 'host') throw new MalformedError('device: key_protection');
  const device: Device = {
    id: requireName(f.string('id')),
    room: requireName(f.string('room')),
    label: requireText(f.string('label'), 1, 64),
    signSpki: fromBase64url(f.string('sign_spki')),
    keyProtection: protection,
    notAfter: readTime(f.string('not_after')),
  };
  const tlsSpki = fromBase64url(f.string('tls_spki'));
  f.end();
  if (device.id === 'all' || device.signSpki.length === 0 || tlsSpki.length === 0) throw new MalformedError('device');
  return { device, tlsSpki };
}

/** The device that signs with this key, unless its entry has run out. */
export function deviceBySigningKey(roster: Roster, spki: Bytes, now: number): Device | undefined {
  return roster.devices.find((d) => equal(d.signSpki, spki) && now < d.notAfter);
}

/** What of a room's configuration concerns a page. */
export interface Config {
  /** 'all', or the id of the device that it is for. */
  readonly target: string;
  /** By role, how a person must have been confirmed. A role that is not named needs 3. */
  readonly minAssurance: ReadonlyMap<string, 1 | 2 | 3>;
}

const personRoles = ['therapist', 'patient', 'guest', 'frontdesk', 'it', 'auditor'];

/** Verifies a configuration. Throws. */
export async function verifyConfig(trust: Trust, envelope: Envelope, now: number): Promise<Config> {
  const { fields, target } = await open(trust, 'config', envelope, now);
  fields.require('call_origin', 'video', 'audio', 'crisis');
  const policy = fields.object('policy');
  const minAssurance = new Map<string, 1 | 2 | 3>();
  for (const [role, level] of policy.entries('min_assurance')) {
    if (!personRoles.includes(role) || (level !== 1 && level !== 2 && level !== 3)) {
      throw new MalformedError(`min_assurance of ${role}`);
    }
    minAssurance.set(role, level);
  }
  policy.end();
  fields.end();
  return { target, minAssurance };
}

/** Checks signatures, then clinic, root version and dates of a document under the owner root. */
async function open(trust: Trust, type: 'roster' | 'config', envelope: Envelope, now: number) {
  requireType(envelope, type);
  const role = trust.roles.get(type)!;
  // Signatures first: bytes of strangers reach no parser.
  requireThreshold(await verifyEach(envelope, role.keys), role);
  const fields = new Fields(parseJson(envelope.payload), type);
  if (readHash(fields.string('owner')) !== trust.clinic) throw new RefusedError(`${type} of another clinic`);
  const root = fields.integer('root_version');
  if (root < 1 || fields.integer('serial') < 1) throw new MalformedError(`${type}: root_version and serial start at 1`);
  if (root > trust.version) throw new RefusedError(`${type} refers to an owner root that is not known here`);
  const target = requireName(fields.string('target'));
  const [issued, expires] = readTimes(fields);
  requireTimely(issued, expires, now);
  return { fields, target };
}

function requireType(envelope: Envelope, type: DocumentType): void {
  if (envelope.payloadType !== payloadType(type)) throw new RefusedError(`document is no ${type}`);
}

function requireTimely(issued: number, expires: number, now: number): void {
  if (issued > now + maxSkewMs) throw new RefusedError("document is dated in the future; is this device's clock right?");
  if (now >= expires) throw new RefusedError('document has expired');
}

function readTimes(f: Fields): [number, number] {
  const issued = readTime(f.string('issued'));
  const expires = readTime(f.string('expires'));
  if (issued >= expires) throw new MalformedError('issued and expires are in the wrong order');
  return [issued, expires];
}

/** Milliseconds of an RFC 3339 time in UTC. */
export function readTime(text: string): number {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?Z$/.exec(text);
  const ms = match ? Date.parse(`${match[1]!}Z`) : NaN;
  // Date accepts some dates that do not exist: what it makes of them is spelled differently.
  if (!match || Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 19) !== match[1]) {
    throw new MalformedError('a time is RFC 3339 in UTC');
  }
  return ms;
}

/** 1 to 63 of a-z, 0-9 and inner hyphens. */
function requireName(text: string): string {
  if (!/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(text)) throw new MalformedError('a name in lower case is expected');
  return text;
}

/** Text that can stand on a screen: no controls, no changes of writing direction. */
function requireText(text: string, least: number, most: number): string {
  const length = [...text].length;
  if (length < least || length > most || /[\p{Cc}\p{Bidi_Control}\ufffd]/u.test(text)) {
    throw new MalformedError(`text has ${least} to ${most} characters that a screen can show`);
  }
  return text;
}
