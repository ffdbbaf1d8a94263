import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { pictureNames } from '../agreement/formulas.ts';
import { t } from '../messages/messages.ts';
import { pictures } from './pictures.ts';

test('there are 64 drawings, one for each name, in the released order', () => {
  const files = readdirSync('src/pictures').filter((name) => name.endsWith('.svg'));
  assert.deepEqual(files.sort(), [...pictureNames].map((name) => `${name}.svg`).sort());
  assert.equal(pictures.length, 64);
  assert.deepEqual(pictures.map((p) => p.message), pictureNames.map((name) => `picture.${name}`));
  assert.deepEqual(pictures.map((p) => t(p.message)), [...pictureNames]);
});

test('all are of one style: one size, one outline, two colours', () => {
  const outline = '#1B2430';
  const fills = new Set(['#F6C65B', '#7FC4CE', '#FFFFFF', outline, 'none']);
  for (const [i, { drawing }] of pictures.entries()) {
    const root = Object.fromEntries(drawing.root);
    assert.deepEqual([root['viewBox'], root['stroke'], root['stroke-width']], ['0 0 64 64', outline, '2.5'], pictureNames[i]);
    const used = drawing.shapes.flatMap(([, attributes]) => attributes.filter(([n]) => n === 'fill').map(([, v]) => v));
    for (const colour of used) assert.ok(fills.has(colour), `${pictureNames[i]}: ${colour}`);
    const bytes = JSON.stringify(drawing).length;
    assert.ok(bytes < 2000, `${pictureNames[i]}: ${bytes} bytes`);
  }
});
