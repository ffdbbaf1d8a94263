import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concat, fromHex, MalformedError, utf8 } from '../agreement/bytes.ts';
import { Fields, parseJson, type Json } from './json.ts';

const parse = (text: string): Json => parseJson(utf8(text));

/** Back to plain values, for comparing with JSON.parse. */
function plain(v: Json): unknown {
  if (v instanceof Map) return Object.fromEntries([...v].map(([k, x]) => [k, plain(x as Json)]));
  if (Array.isArray(v)) return v.map((x) => plain(x as Json));
  return v;
}

test('reads what JSON.parse reads', () => {
  const texts = [
    'null', ' true ', 'false', '0', '-1', '9007199254740991', '""', '"\\u00e9\\n\\"\\\\/\\ud83d\\ude00"', '[]', '{}',
    '[1,[2,{"a":[]}],"x"]', '{"a":1,"b":{"a":2},"c":[{"a":3},{"a":4}]}', '\t{\r\n"a" : "b" }\n', '"日本"',
  ];
  for (const text of texts) assert.deepEqual(plain(parse(text)), JSON.parse(text), text);
});

test('refuses names twice and in two spellings', () => {
  const texts = [
    '{"a":1,"a":1}', '{"a":1,"A":1}', '{"role":1,"ro\\u006ce":2}', '{"x":{"serial":1,"Serial":2}}', '[{"k":1,"K":2}]',
    '{"keys":1,"\u212Aeys":2}', '{"s":1,"\u017F":2}', '{"__proto__":1,"__PROTO__":2}',
  ];
  for (const text of texts) assert.throws(() => parse(text), MalformedError, text);
});

test('refuses everything that is not one strict value', () => {
  const texts = [
    '', ' ', '1 2', '{} {}', '[1,]', '[,1]', '{"a":1,}', '{a:1}', "{'a':1}", '{"a"}', '{"a":}', '[', '{', '"', '"\\', '"a',
    '01', '+1', '-', '-0', '1.0', '1e3', '.5', '9007199254740992', '99999999999999999999999', 'NaN', 'nul', 'True',
    '"\\x"', '"\n"', '"\\ud800"', '"\\udc00\\ud800"', '//x\n1', '\u00a01', '\uFEFF1', '[1 2]', '{"a" 1}',
    '['.repeat(40) + ']'.repeat(40),
  ];
  for (const text of texts) assert.throws(() => parse(text), MalformedError, JSON.stringify(text));
  assert.throws(() => parseJson(concat(utf8('"'), fromHex('ff'), utf8('"'))), MalformedError);
  assert.throws(() => parseJson(fromHex('efbbbf31')), MalformedError);
});

test('fields are read by exact name and unknown ones refused', () => {
  const f = new Fields(parse('{"s":"x","n":3,"l":["a"],"o":{"t":true},"m":{"k":1}}'), 'test');
  assert.equal(f.string('s'), 'x');
  assert.equal(f.integer('n'), 3);
  assert.deepEqual(f.strings('l'), ['a']);
  assert.throws(() => f.end(), MalformedError);
  const o = f.object('o');
  assert.equal(o.optionalBoolean('t'), true);
  assert.equal(o.optionalBoolean('absent'), false);
  o.end();
  assert.deepEqual(f.entries('m'), [['k', 1]]);
  f.end();
  assert.throws(() => f.string('S'), MalformedError);
  assert.throws(() => f.string('n'), MalformedError);
  assert.throws(() => f.integer('s'), MalformedError);
  assert.throws(() => new Fields(parse('[]'), 'test'), MalformedError);
  assert.throws(() => new Fields(parse('{"n":-1}'), 'test').integer('n'), MalformedError);
});
