// Every word that a page shows. A message is one whole sentence with named places, never built from pieces, so that
// another language can order it as it likes.

import en from './en.json';

export type MessageId = keyof typeof en;
export type Places = Readonly<Record<string, string | number>>;

/** The message with its places filled. A missing place throws: a sentence with a hole is never shown. */
export function t(id: MessageId, places: Places = {}): string {
  return en[id].replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = places[name];
    if (value === undefined) throw new Error(`message ${id}: no value for ${name}`);
    return String(value);
  });
}
