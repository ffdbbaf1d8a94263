// Sealed data messages to and from the members, one sealer for what this page sends and one opener per member and
// generation. Keys come from the agreement; a retired generation opens nothing any more.

import { DataOpener, DataSealer, readDataHeader, type DataContext } from '../data/seal.ts';
import { readDataMessage, writeDataMessage, type DataMessage } from '../media/report.ts';
import type { Bytes } from '../agreement/bytes.ts';

export class Channel {
  #sealer: DataSealer | undefined;
  #openers = new Map<string, Map<number, DataOpener>>();

  /** Seals with this key from now on; undefined: seals nothing. */
  send(context: DataContext | undefined): void {
    this.#sealer = context && new DataSealer(context);
  }

  receive(identity: string, context: DataContext): void {
    let openers = this.#openers.get(identity);
    if (!openers) this.#openers.set(identity, (openers = new Map()));
    openers.set(context.gen, new DataOpener(context));
  }

  retire(identity: string, gen: number): void {
    this.#openers.get(identity)?.delete(gen);
  }

  /** The sealed packet, or undefined while there is no key to seal with. */
  async seal(message: DataMessage): Promise<Bytes | undefined> {
    return this.#sealer?.seal(writeDataMessage(message));
  }

  /** Opens a packet that LiveKit says is from this identity. Throws for everything that is not authentic. */
  async open(identity: string, packet: Uint8Array): Promise<DataMessage> {
    const { gen } = readDataHeader(packet);
    const opener = this.#openers.get(identity)?.get(gen);
    if (!opener) throw new Error('no key for this data message');
    return readDataMessage(await opener.open(packet));
  }
}
