// What this page brings to the key agreement: the clinic's documents, checked against the hash in the link, and a fresh
// endpoint. The hub delivers both documents and messages; what it delivers is believed only as far as it is signed.

import { hubProof } from '../agreement/proof.ts';
import { Member } from '../agreement/member.ts';
import { fitName, newEndpoint, type Role } from '../agreement/document.ts';
import { toHex, type Bytes } from '../agreement/bytes.ts';
import type { Link } from '../relay/join.ts';
import { openClinic, type Clinic } from '../trust/clinic.ts';

/** Larger answers are refused unread: owner roots, a roster of a large clinic and its configuration stay far below. */
const maxTrust = 8 << 20;

/** Fetches and checks the clinic's documents. Throws when the clinic of the link does not vouch for them. */
export async function fetchClinic(link: Link): Promise<Clinic> {
  const response = await fetch(new URL('/v1/trust', link.hub), {
    credentials: 'omit',
    cache: 'no-store',
    referrerPolicy: 'no-referrer',
  });
  if (!response.ok) throw new Error(`trust: status ${response.status}`);
  const answer = new Uint8Array(await response.arrayBuffer());
  if (answer.length > maxTrust) throw new Error('trust: answer is too large');
  return openClinic(toHex(link.clinic), answer);
}

/** Who this page is in a session. */
export interface Membership {
  readonly sid: Bytes;
  readonly role: Exclude<Role, 'device'>;
  readonly name: string;
}

/** Makes a new endpoint with fresh keys. The clinic is the link's, not what the hub says it is. */
export async function newMember(clinic: Clinic, { sid, role, name }: Membership): Promise<Member> {
  const endpoint = await newEndpoint({ clinic: clinic.hash, sid }, role, fitName(name));
  return new Member(endpoint, { prove: () => hubProof, verify: clinic.verify, minLevel: clinic.minLevel });
}
