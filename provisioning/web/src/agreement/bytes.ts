// Byte strings of the key agreement: lp, H, and a reader that refuses whatever it does not fully understand.
//
//   lp(x)         = u32be(len x) ‖ x
//   H(label, x…)  = SHA-256(lp(label) ‖ lp(x)…)
//
// All integers are big-endian. Signed and hashed bytes are always the bytes received, never a re-encoding.

/** Bytes over an ArrayBuffer of their own or a view of one; what WebCrypto takes. */
export type Bytes = Uint8Array<ArrayBuffer>;

const utf8Encoder = new TextEncoder();
// ignoreBOM keeps a leading U+FEFF: what is shown must be what was signed.
const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes that do not have the form their format demands. Nothing of them may be used. */
export class MalformedError extends Error {
  override name = 'MalformedError';
}

export function utf8(text: string): Bytes {
  return utf8Encoder.encode(text) as Bytes;
}

/** Decodes UTF-8 strictly: a malformed sequence throws MalformedError. */
export function fromUtf8(bytes: Uint8Array): string {
  try {
    return utf8Decoder.decode(bytes);
  } catch {
    throw new MalformedError('text is not UTF-8');
  }
}

export function concat(...parts: readonly Uint8Array[]): Bytes {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let offset = 0;
  for (const part of parts) {
    out.set(part, offset);
    offset += part.length;
  }
  return out;
}

/** Copies, so that a later change of the source (a reused network buffer) cannot change what was checked. */
export function copy(bytes: Uint8Array): Bytes {
  return new Uint8Array(bytes);
}

/** Equality of public values; its time depends on the content. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Order of bytes.Compare: byte by byte, a prefix first. */
export function compare(a: Uint8Array, b: Uint8Array): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) {
    const d = a[i]! - b[i]!;
    if (d !== 0) return d;
  }
  return a.length - b.length;
}

export function u8(value: number): Bytes {
  if (!Number.isInteger(value) || value < 0 || value > 0xff) throw new RangeError('u8 out of range');
  return Uint8Array.of(value);
}

export function u32(value: number): Bytes {
  if (!Number.isInteger(value) || value < 0 || value > 0xffffffff) throw new RangeError('u32 out of range');
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, value);
  return out;
}

/** A u64 of the wire. Values above 2^53−1 cannot be held exactly in a number and are refused in both directions. */
export function u64(value: number): Bytes {
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError('u64 out of range');
  const out = new Uint8Array(8);
  const view = new DataView(out.buffer);
  view.setUint32(0, Math.floor(value / 0x100000000));
  view.setUint32(4, value % 0x100000000);
  return out;
}

export function lp(bytes: Uint8Array): Bytes {
  return concat(u32(bytes.length), bytes);
}

export async function sha256(bytes: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
}

/** H(label, x…): labelled and length-prefixed, so that no two lists of inputs hash the same bytes. */
export function H(label: string, ...inputs: readonly Uint8Array[]): Promise<Bytes> {
  return sha256(concat(lp(utf8(label)), ...inputs.map(lp)));
}

/** Reads a message front to back; every read is bounded, and `end` refuses trailing bytes. */
export class Reader {
  #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get offset(): number {
    return this.#offset;
  }

  get remaining(): number {
    return this.#bytes.length - this.#offset;
  }

  /** The next n bytes, as a copy. */
  take(n: number): Bytes {
    if (n > this.remaining) throw new MalformedError('message is too short');
    const out = copy(this.#bytes.subarray(this.#offset, this.#offset + n));
    this.#offset += n;
    return out;
  }

  u8(): number {
    return this.take(1)[0]!;
  }

  u32(): number {
    const b = this.take(4);
    return new DataView(b.buffer).getUint32(0);
  }

  u64(): number {
    const b = this.take(8);
    const view = new DataView(b.buffer);
    const value = view.getUint32(0) * 0x100000000 + view.getUint32(4);
    if (!Number.isSafeInteger(value)) throw new MalformedError('number is too large');
    return value;
  }

  /** A length-prefixed value of at most `max` bytes. */
  lp(max: number): Bytes {
    const n = this.u32();
    if (n > max) throw new MalformedError(`field of ${n} bytes, at most ${max} are allowed`);
    return this.take(n);
  }

  /** A length-prefixed value that must equal the label: an unknown label or version is refused here. */
  label(text: string): void {
    const want = utf8(text);
    const got = this.lp(want.length);
    if (!equal(got, want)) throw new MalformedError(`label is not ${text}`);
  }

  end(): void {
    if (this.remaining !== 0) throw new MalformedError(`${this.remaining} trailing bytes`);
  }
}

export function toHex(bytes: Uint8Array): string {
  let out = '';
  for (const b of bytes) out += b.toString(16).padStart(2, '0');
  return out;
}

/** Lower-case hex only: one value has one spelling. */
export function fromHex(text: string): Bytes {
  if (text.length % 2 !== 0 || !/^[0-9a-f]*$/.test(text)) throw new MalformedError('not lower-case hex');
  const out = new Uint8Array(text.length / 2);
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return out;
}

const base64urlAlphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** Unpadded base64url (RFC 4648 section 5). */
export function toBase64url(bytes: Uint8Array): string {
  let out = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const n = (bytes[i]! << 16) | ((bytes[i + 1] ?? 0) << 8) | (bytes[i + 2] ?? 0);
    out += base64urlAlphabet[n >> 18]! + base64urlAlphabet[(n >> 12) & 63]!;
    if (i + 1 < bytes.length) out += base64urlAlphabet[(n >> 6) & 63]!;
    if (i + 2 < bytes.length) out += base64urlAlphabet[n & 63]!;
  }
  return out;
}

/** Strict inverse of toBase64url: no padding, no other alphabet, no stray bits. */
export function fromBase64url(text: string): Bytes {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) throw new MalformedError('not base64url');
  const out = new Uint8Array(Math.floor((text.length * 3) / 4));
  let bits = 0;
  let held = 0;
  let offset = 0;
  for (const c of text) {
    bits = ((bits << 6) | base64urlAlphabet.indexOf(c)) & 0xffffff;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out[offset++] = (bits >> held) & 0xff;
    }
  }
  if ((bits & ((1 << held) - 1)) !== 0) throw new MalformedError('base64url with stray bits');
  return out;
}
