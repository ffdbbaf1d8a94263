// What a page knows of the clinic behind its link, and what it verifies of the others with it: the room by its key in
// the clinic's signed roster. Everything else that the hub says about people is the hub's word.

import type { Claim } from '../agreement/api.ts';
import { fromHex, MalformedError, toHex, type Bytes } from '../agreement/bytes.ts';
import type { Role } from '../agreement/document.ts';
import { readDeviceProof, type Level } from '../agreement/proof.ts';
import { deviceBySigningKey, verifyConfig, verifyOwnerRoots, verifyRoster, type Config, type Device, type Roster, type Trust } from './documents.ts';
import { readEnvelope, RefusedError } from './envelope.ts';
import { Fields, parseJson, type Json } from './json.ts';
import { verifyP256 } from './p256.ts';

/** Verified documents of one clinic. Only openClinic makes one. */
export class Clinic {
  readonly trust: Trust;
  readonly roster: Roster;
  readonly config: Config | undefined;
  readonly #wallClock: () => number;
  readonly #devices = new Map<string, Device>();

  constructor(trust: Trust, roster: Roster, config: Config | undefined, wallClock: () => number) {
    this.trust = trust;
    this.roster = roster;
    this.config = config;
    this.#wallClock = wallClock;
  }

  /** The clinic hash, as documents of the key agreement carry it. */
  get hash(): Bytes {
    return fromHex(this.trust.clinic);
  }

  /** The clinic's minimum per role, for MemberConfig. Without a config the agreement's own minimum holds. */
  get minLevel(): Partial<Record<Role, Level>> {
    const { config } = this;
    if (!config) return {};
    const level = (role: Role) => config.minAssurance.get(role) ?? 3;
    return { therapist: level('therapist'), patient: level('patient'), guest: level('guest') };
  }

  /** Verifies a claim as far as a page can, for MemberConfig. */
  readonly verify = async (claim: Claim): Promise<Level | 0> => {
    switch (claim.proof.kind) {
      case 'device':
        await this.#verifyDevice(claim);
        return 3;
      case 'hub':
        return 1;
      default:
        // The room verifies passkeys and OIDC against challenges of its own; its word stands in the transcript.
        return 0;
    }
  };

  async #verifyDevice(claim: Claim): Promise<void> {
    const { spki, signature, message } = readDeviceProof(claim.proof, claim.D, claim.K);
    const device = deviceBySigningKey(this.roster, spki, this.#wallClock());
    if (!device) throw new RefusedError("the room's key is not in the clinic's roster");
    if (this.config && this.config.target !== 'all' && this.config.target !== device.id) {
      throw new RefusedError('configuration of another room');
    }
    if (!(await verifyP256(spki, signature, message))) throw new RefusedError("the room's proof does not hold");
    this.#devices.set(toHex(claim.D), device);
  }

  /** The room's entry in the roster, once its proof was verified: its label is the clinic's word, not the hub's. */
  device(D: Bytes): Device | undefined {
    return this.#devices.get(toHex(D));
  }
}

/**
 * Opens the hub's answer to GET /v1/trust for the clinic that stands in the link (hex SHA-256 of its first owner
 * root). Throws RefusedError or MalformedError for anything that the clinic's keys do not vouch for.
 */
export async function openClinic(
  clinic: string,
  answer: Uint8Array,
  wallClock: () => number = Date.now,
): Promise<Clinic> {
  const f = new Fields(parseJson(answer), 'trust');
  const roots = f.list('owner_roots').map(readEnvelope);
  const rosterEnvelope = readEnvelope(f.value('roster'));
  const configEnvelope = optionalEnvelope(f.value('config'));
  // Staff's passkeys: the room checks them.
  optionalEnvelope(f.value('people'));
  f.end();
  const now = wallClock();
  const trust = await verifyOwnerRoots(clinic, roots, now);
  const roster = await verifyRoster(trust, rosterEnvelope, now);
  const config = configEnvelope && (await verifyConfig(trust, configEnvelope, now));
  return new Clinic(trust, roster, config, wallClock);
}

function optionalEnvelope(value: Json | undefined) {
  if (value === undefined) throw new MalformedError('trust: a document is missing');
  return value === null ? undefined : readEnvelope(value);
}
