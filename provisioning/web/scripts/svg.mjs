// Reads a drawing at build time, so that pages make it from parts with createElementNS: the pages' policy allows no
// markup from text (Trusted Types), no foreign file and no inline style.
//
// Only flat drawings of plain shapes are accepted: no script, style, link, text, nested or foreign element.
import { readFileSync } from 'node:fs';

const shapes = new Set(['path', 'circle', 'ellipse', 'rect', 'line', 'polyline', 'polygon']);
const shapeAttributes = new Set(
  'd cx cy r rx ry x y width height x1 y1 x2 y2 points fill stroke stroke-width transform opacity'.split(' '),
);
const rootAttributes = new Set('viewBox fill stroke stroke-width stroke-linecap stroke-linejoin'.split(' '));
const ignoredRootAttributes = new Set('xmlns class width height'.split(' '));

function attributesOf(text, file) {
  const out = [];
  const rest = text.replace(/([\w-]+)="([^"<&]*)"/g, (_, name, value) => {
    out.push([name, value]);
    return '';
  });
  if (rest.replaceAll('/', '').trim()) throw new Error(`${file}: cannot read ${JSON.stringify(rest.trim())}`);
  return out;
}

/** Returns { root: [[name, value]…], shapes: [[tag, [[name, value]…]]…] }. */
export function readDrawing(text, file) {
  const body = text.replace(/<!--[\s\S]*?-->/g, '').trim();
  const whole = /^<svg([^>]*)>([\s\S]*)<\/svg>$/.exec(body);
  if (!whole) throw new Error(`${file}: not one svg element`);
  const root = attributesOf(whole[1], file).filter(([name]) => {
    if (rootAttributes.has(name)) return true;
    if (ignoredRootAttributes.has(name)) return false;
    throw new Error(`${file}: attribute ${name}`);
  });
  const parts = [];
  const rest = whole[2].replace(/<(\w+)([^>]*)\/>/g, (_, tag, attributes) => {
    if (!shapes.has(tag)) throw new Error(`${file}: element ${tag}`);
    const list = attributesOf(attributes, file);
    for (const [name] of list) if (!shapeAttributes.has(name)) throw new Error(`${file}: attribute ${name}`);
    parts.push([tag, list]);
    return '';
  });
  if (rest.trim()) throw new Error(`${file}: cannot read ${JSON.stringify(rest.trim().slice(0, 60))}`);
  return { root, shapes: parts };
}

/** esbuild plugin: `import drawing from './x.svg'`. */
export const svg = {
  name: 'svg',
  setup(build) {
    build.onLoad({ filter: /\.svg$/ }, ({ path }) => ({
      contents: JSON.stringify(readDrawing(readFileSync(path, 'utf8'), path)),
      loader: 'json',
    }));
  },
};
