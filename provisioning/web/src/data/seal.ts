// Data messages between the room and a page: what travels in LiveKit data packets under topic "alcove".
//
//   u8 1 ‖ u32 gen ‖ u64 seq ‖ IV[12] ‖ ciphertext ‖ tag[16]
//
// AES-256-GCM; key = HKDF-SHA-256(sender's secret of generation gen, salt "alcove/data/v1", info empty, 32 bytes);
// AAD = H("alcove/data/v1", T, D_from, u32 gen, u64 seq). T and D_from are not sent: a packet moved into another
// transcript, or shown as somebody else's, does not open. Within one generation seq rises strictly: what was opened
// once never opens again, and an older packet that arrives late is dropped. Sizes and times are not hidden.
// LiveKit's own data encryption is not used: it shares the media key, has no order and no replay check.

import { concat, copy, H, MalformedError, Reader, u32, u64, u8, utf8, type Bytes } from '../agreement/bytes.ts';

export const dataTopic = 'alcove';

const version = 1;
const label = 'alcove/data/v1';
const ivSize = 12;
const tagSize = 16;
const headerSize = 1 + 4 + 8 + ivSize;

/** The largest message, unsealed: with its overhead it fits LiveKit's 15 kB of a data packet. */
export const maxDataMessage = 14 * 1024;
/** How much longer a sealed message is. */
const overhead = headerSize + tagSize;
/** How many messages one generation seals. */
const maxMessages = 2 ** 20;

/** Derives the data key of one sender's generation from its 32-byte secret. The key cannot be exported. */
export async function deriveDataKey(secret: Bytes): Promise<CryptoKey> {
  if (secret.length !== 32) throw new RangeError('secret is not 32 bytes');
  const material = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveKey']);
  return crypto.subtle.deriveKey(
    { name: 'HKDF', hash: 'SHA-256', salt: utf8(label), info: new Uint8Array(0) },
    material,
    { name: 'AES-GCM', length: 256 },
    false,
    ['encrypt', 'decrypt'],
  );
}

function aad(T: Bytes, from: Bytes, gen: number, seq: number): Promise<Bytes> {
  return H(label, T, from, u32(gen), u64(seq));
}

/** Everything that a data key is bound to. */
export interface DataContext {
  /** Data key of this generation, from deriveDataKey. */
  readonly key: CryptoKey;
  readonly gen: number;
  /** Transcript hash T under which this generation was announced. */
  readonly T: Bytes;
  /** Document hash D of the sender. */
  readonly from: Bytes;
}

/** Seals one generation's messages of this page. Make a new one for each generation. */
export class DataSealer {
  readonly #context: DataContext;
  #seq = 0;

  constructor(context: DataContext) {
    this.#context = { ...context, T: copy(context.T), from: copy(context.from) };
  }

  get gen(): number {
    return this.#context.gen;
  }

  async seal(body: Uint8Array): Promise<Bytes> {
    if (body.length > maxDataMessage) throw new RangeError('data message is too large');
    if (this.#seq >= maxMessages) throw new RangeError('this generation has sealed enough: rotate the key');
    const { key, gen, T, from } = this.#context;
    // Taken before the first await: two calls at once must not share a number.
    const seq = ++this.#seq;
    const iv = crypto.getRandomValues(new Uint8Array(ivSize));
    const sealed = await crypto.subtle.encrypt(
      { name: 'AES-GCM', iv, additionalData: await aad(T, from, gen, seq), tagLength: 8 * tagSize },
      key,
      copy(body),
    );
    return concat(u8(version), u32(gen), u64(seq), iv, new Uint8Array(sealed));
  }
}

/** What a data packet says of itself before it is opened; nothing of it is authentic yet. */
export interface DataHeader {
  readonly gen: number;
  readonly seq: number;
}

/** Reads gen and seq, to find the opener. Throws MalformedError for anything that cannot be a data message. */
export function readDataHeader(packet: Uint8Array): DataHeader {
  if (packet.length > maxDataMessage + overhead) throw new MalformedError('data message is too large');
  if (packet.length < overhead) throw new MalformedError('data message is too short');
  const r = new Reader(packet);
  const v = r.u8();
  if (v !== version) throw new MalformedError(`data message of unknown version ${v}`);
  return { gen: r.u32(), seq: r.u64() };
}

/** Opens one generation's messages of one sender, each at most once and in rising order. */
export class DataOpener {
  readonly #context: DataContext;
  #last = 0;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(context: DataContext) {
    this.#context = { ...context, T: copy(context.T), from: copy(context.from) };
  }

  get gen(): number {
    return this.#context.gen;
  }

  /** Returns the body. Throws for another generation, a number already passed, and everything not authentic. */
  open(packet: Uint8Array): Promise<Bytes> {
    const bytes = copy(packet);
    // One at a time: the check of seq and its advance must not interleave with another packet's.
    const result = this.#queue.then(() => this.#open(bytes));
    this.#queue = result.catch(() => undefined);
    return result;
  }

  async #open(packet: Bytes): Promise<Bytes> {
    const { gen, seq } = readDataHeader(packet);
    const { key, T, from } = this.#context;
    if (gen !== this.#context.gen) throw new MalformedError('data message of another generation');
    if (seq <= this.#last) throw new MalformedError('data message was already seen or came too late');
    const iv = packet.slice(headerSize - ivSize, headerSize);
    let body: ArrayBuffer;
    try {
      body = await crypto.subtle.decrypt(
        { name: 'AES-GCM', iv, additionalData: await aad(T, from, gen, seq), tagLength: 8 * tagSize },
        key,
        packet.slice(headerSize),
      );
    } catch {
      throw new MalformedError('data message does not open');
    }
    // Only an authentic message advances the window: junk with a huge seq must not silence the sender.
    this.#last = seq;
    return new Uint8Array(body);
  }
}
