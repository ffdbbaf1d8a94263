import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import en from './en.json';
import { t, type MessageId } from './messages.ts';

const ids = Object.keys(en) as MessageId[];
const words = en as Readonly<Record<string, string>>;

interface Found {
  readonly exact: Set<string>;
  /** Ids that are put together: the fixed parts around what varies. */
  readonly patterns: RegExp[];
  /** Texts in the program that look like words for people. */
  readonly inline: string[];
}

/** A text of the program that a person could read: a sentence, or one word with a capital. */
const forPeople = /^[A-Z][a-z’']+([ .,:?!]|$)/;
/** Names of the platform. */
const names = /^(Ed25519|Inter|Worker|Home|End|Disconnected)$/;
const idLike = /^(?:[a-z]+\.)[a-z_0-9]*$/;

function isForPeople(node: ts.StringLiteralLike): boolean {
  if (!forPeople.test(node.text) || names.test(node.text)) return false;
  for (let n: ts.Node = node.parent; n; n = n.parent) {
    // Errors and their messages are for logs; names of keys, events and types are not words.
    if (ts.isNewExpression(n) && /Error$/.test(n.expression.getText())) return false;
    if (ts.isImportDeclaration(n) || ts.isTypeNode(n) || ts.isCaseClause(n)) return false;
  }
  return true;
}

function walk(file: string, found: Found): void {
  const source = ts.createSourceFile(file, readFileSync(file, 'utf8'), ts.ScriptTarget.Latest, true);
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteralLike(node)) {
      if (idLike.test(node.text)) found.exact.add(node.text);
      if (isForPeople(node)) found.inline.push(`${file}: ${node.text}`);
    } else if (ts.isTemplateExpression(node)) {
      const parts = [node.head.text, ...node.templateSpans.map((s) => s.literal.text)];
      if (/^[a-z]+\./.test(parts[0]!)) {
        const literal = parts.map((p) => p.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
        found.patterns.push(new RegExp(`^${literal.join('[a-z_]+')}$`));
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
}

/** Programs for pages: agreement, trust and data show nothing. */
const folders = ['call', 'ui', 'media', 'relay', 'pictures', 'messages'];

function program(): Found {
  const found: Found = { exact: new Set(['page.noscript']), patterns: [], inline: [] };
  for (const folder of folders) {
    const path = join('src', folder);
    for (const name of readdirSync(path)) {
      if (name.endsWith('.ts') && !name.endsWith('.test.ts') && name !== 'testing.ts') walk(join(path, name), found);
    }
  }
  return found;
}

test('every message that the pages name is there, and every message is named', () => {
  const found = program();
  const prefixes = new Set(ids.map((id) => id.split('.')[0]));
  const missing = [...found.exact].filter((id) => prefixes.has(id.split('.')[0]) && !(id in words));
  assert.deepEqual(missing, []);
  const unused = ids.filter((id) => !found.exact.has(id) && !found.patterns.some((p) => p.test(id)));
  assert.deepEqual(unused, []);
});

test('no words for people stand in the program', () => {
  assert.deepEqual(program().inline, []);
});

test('a sentence with a hole is never shown', () => {
  assert.equal(t('ask.title', { clinic: 'North Clinic' }), 'Your appointment with North Clinic');
  assert.throws(() => t('ask.title'));
});

// journeys 1.1: what is never said to a patient.
const never =
  /\b(errors?|fail(ed|ure)?|invalid|illegal|denied|rejected|fatal|abort(ed)?|kill(ed)?|terminated?|crash(ed)?|attack(er)?|hacker|intruder|suspicious|compromised|unsafe|encrypt(ed|ion)?|oops|user|client|administrator)\b/i;

test('the words are calm', () => {
  for (const id of ids) {
    assert.doesNotMatch(words[id]!, never, id);
    assert.doesNotMatch(words[id]!, /!|\b[A-Z]{4,}\b/, id);
    assert.equal(words[id], words[id]!.trim(), id);
  }
});

test('the words keep their budgets', () => {
  const buttons = ids.filter((id) =>
    /^(?!line).*\.(go|again|leave|both|microphone|mute|unmute|people|back|finish|sound)$/.test(id),
  );
  for (const id of buttons) assert.ok(words[id]!.length <= 22, `${id}: ${words[id]!.length}`);
  for (const id of ids.filter((id) => /(^|[._])title$/.test(id))) assert.ok(words[id]!.length <= 45, id);
  for (const id of ids) {
    for (const sentence of words[id]!.split(/[.?] /)) {
      const count = sentence.split(' ').length;
      assert.ok(count <= 20, `${id}: ${count} words`);
    }
  }
});
