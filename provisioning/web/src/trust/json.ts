// The JSON reader for everything signed or received from the hub. JSON.parse keeps the last of two equal names and
// other readers compare names without case, so two readers of the same bytes could see different documents. This one
// refuses: a name twice in one object, names that differ only by case, numbers that are not integers which a number
// holds exactly, text that is not UTF-8 or holds a lone surrogate, more than 4 MiB, nesting beyond 32, anything after
// the value. Unknown names are refused by the field readers below. Same rules as provisioning/document.Decode.

import { fromUtf8, MalformedError } from '../agreement/bytes.ts';

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
/** An object as a Map: names such as __proto__ are only names. */
export type JsonObject = ReadonlyMap<string, Json>;

const maxDepth = 32;
const maxSize = 4 << 20;

/** Parses one JSON value. Throws MalformedError. */
export function parseJson(bytes: Uint8Array): Json {
  if (bytes.length > maxSize) throw new MalformedError('JSON: too large');
  return new Parser(fromUtf8(bytes)).document();
}

class Parser {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): Json {
    const value = this.#value(0);
    this.#space();
    if (this.#at !== this.#text.length) this.#fail('something follows the value');
    return value;
  }

  #fail(what: string): never {
    throw new MalformedError(`JSON: ${what} at ${this.#at}`);
  }

  #space(): void {
    while (' \t\r\n'.includes(this.#text[this.#at] ?? 'x')) this.#at++;
  }

  #take(c: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== c) return false;
    this.#at++;
    return true;
  }

  #value(depth: number): Json {
    if (depth > maxDepth) this.#fail('nested too deeply');
    this.#space();
    switch (this.#text[this.#at]) {
      case '{':
        return this.#object(depth);
      case '[':
        return this.#array(depth);
      case '"':
        return this.#string();
      case 't':
        return this.#word('true', true);
      case 'f':
        return this.#word('false', false);
      case 'n':
        return this.#word('null', null);
      default:
        return this.#integer();
    }
  }

  #word<T extends Json>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) this.#fail('unknown word');
    this.#at += word.length;
    return value;
  }

  #integer(): number {
    const match = /^-?(?:0|[1-9][0-9]*)/.exec(this.#text.slice(this.#at, this.#at + 20));
    if (!match) this.#fail('no value');
    this.#at += match[0].length;
    if (/[0-9.eE+-]/.test(this.#text[this.#at] ?? '')) this.#fail('number is not a plain integer');
    const value = Number(match[0]);
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) this.#fail('integer is out of range');
    return value;
  }

  #string(): string {
    const start = this.#at++;
    for (;;) {
      const c = this.#text[this.#at];
      if (c === undefined) this.#fail('text does not end');
      this.#at++;
      if (c === '"') break;
      if (c === '\\') this.#at++;
    }
    // The extent is found above; escapes and control characters are judged by the platform's parser.
    let value: unknown;
    try {
      value = JSON.parse(this.#text.slice(start, this.#at));
    } catch {
      this.#fail('malformed text');
    }
    if (typeof value !== 'string' || /\p{Surrogate}/u.test(value)) this.#fail('malformed text');
    return value;
  }

  #array(depth: number): Json[] {
    this.#at++;
    const out: Json[] = [];
    if (this.#take(']')) return out;
    do out.push(this.#value(depth + 1));
    while (this.#take(','));
    if (!this.#take(']')) this.#fail('list does not end');
    return out;
  }

  #object(depth: number): JsonObject {
    this.#at++;
    const out = new Map<string, Json>();
    const folded = new Set<string>();
    if (this.#take('}')) return out;
    do {
      this.#space();
      if (this.#text[this.#at] !== '"') this.#fail('name expected');
      const name = this.#string();
      const fold = foldCase(name);
      if (folded.has(fold)) this.#fail(`name ${JSON.stringify(name)} appears twice or in two spellings`);
      folded.add(fold);
      if (!this.#take(':')) this.#fail('colon expected');
      out.set(name, this.#value(depth + 1));
    } while (this.#take(','));
    if (!this.#take('}')) this.#fail('object does not end');
    return out;
  }
}

/** Folds at least what Go's encoding/json folds: ASCII case, and U+017F and U+212A, which fold to s and k. */
function foldCase(name: string): string {
  return name.toUpperCase().toLowerCase();
}

/** Reads the fields of one object by exact name; `end` refuses names that nobody asked for. */
export class Fields {
  readonly #object: JsonObject;
  readonly #what: string;
  readonly #known = new Set<string>();

  constructor(value: Json | undefined, what: string) {
    if (!(value instanceof Map)) throw new MalformedError(`${what} is not an object`);
    this.#object = value;
    this.#what = what;
  }

  #get(name: string): Json | undefined {
    this.#known.add(name);
    return this.#object.get(name);
  }

  #wrong(name: string, want: string): never {
    throw new MalformedError(`${this.#what}: ${name} is not ${want}`);
  }

  has(name: string): boolean {
    return this.#object.has(name);
  }

  string(name: string): string {
    const v = this.#get(name);
    return typeof v === 'string' ? v : this.#wrong(name, 'text');
  }

  /** The text, or '' when the name is absent. */
  optionalString(name: string): string {
    return this.has(name) ? this.string(name) : (this.#get(name), '');
  }

  /** A non-negative integer. */
  integer(name: string): number {
    const v = this.#get(name);
    return typeof v === 'number' && v >= 0 ? v : this.#wrong(name, 'a non-negative integer');
  }

  /** True or false; false when the name is absent. */
  optionalBoolean(name: string): boolean {
    const v = this.#get(name);
    if (v === undefined) return false;
    return typeof v === 'boolean' ? v : this.#wrong(name, 'true or false');
  }

  boolean(name: string): boolean {
    const v = this.#get(name);
    return typeof v === 'boolean' ? v : this.#wrong(name, 'true or false');
  }

  /** The member as it is; undefined when it is absent. */
  value(name: string): Json | undefined {
    return this.#get(name);
  }

  list(name: string): readonly Json[] {
    const v = this.#get(name);
    return Array.isArray(v) ? v : this.#wrong(name, 'a list');
  }

  strings(name: string): readonly string[] {
    return this.list(name).map((v) => (typeof v === 'string' ? v : this.#wrong(name, 'a list of texts')));
  }

  object(name: string): Fields {
    return new Fields(this.#get(name), `${this.#what}: ${name}`);
  }

  /** The members of an object whose names are data, in the order written. */
  entries(name: string): readonly (readonly [string, Json])[] {
    const v = this.#get(name);
    return v instanceof Map ? [...(v as JsonObject)] : this.#wrong(name, 'an object');
  }

  /** Requires members that the reader has no use for: they are there, and their values are not looked at. */
  require(...names: readonly string[]): void {
    for (const name of names) if (this.#get(name) === undefined) this.#wrong(name, 'there');
  }

  end(): void {
    for (const name of this.#object.keys()) {
      if (!this.#known.has(name)) throw new MalformedError(`${this.#what}: unknown name ${JSON.stringify(name)}`);
    }
  }
}
