import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';

interface Build {
  buildCall(): Promise<{ readonly files: ReadonlyMap<string, Uint8Array>; readonly bundleHash: string }>;
}
interface Svg {
  readDrawing(text: string, file: string): { readonly shapes: readonly unknown[] };
}

const script = <T>(name: string): Promise<T> => import(pathToFileURL(resolve('scripts', name)).href) as Promise<T>;

test('a fresh build is the released page, twice', async () => {
  const { buildCall } = await script<Build>('build.mjs');
  const [a, b] = [await buildCall(), await buildCall()];
  assert.deepEqual([...a.files.keys()], [...b.files.keys()]);
  for (const [name, bytes] of a.files) assert.deepEqual(bytes, b.files.get(name), name);
  assert.equal(
    a.bundleHash,
    readFileSync('call.sha256', 'utf8').trim(),
    'call.sha256 is of another page: `npm run build -- --release` when the change is meant',
  );
});

test('the worker is the npm file, untouched', async () => {
  const { buildCall } = await script<Build>('build.mjs');
  const { files } = await buildCall();
  const [name] = [...files.keys()].filter((file) => file.startsWith('worker-'));
  const npm = readFileSync('node_modules/livekit-client/dist/livekit-client.e2ee.worker.js');
  assert.equal(createHash('sha256').update(files.get(name!)!).digest('hex'), createHash('sha256').update(npm).digest('hex'));
});

test('the page names its files with their hashes and carries nothing from elsewhere', async () => {
  const { buildCall } = await script<Build>('build.mjs');
  const { files } = await buildCall();
  const page = Buffer.from(files.get('index.html')!).toString();
  for (const [, file, integrity] of page.matchAll(/(?:src|href)="([^"]+)" integrity="sha384-([^"]+)"/g)) {
    const sum = createHash('sha384').update(files.get(file!)!).digest('base64');
    assert.equal(sum, integrity, file);
  }
  for (const [name, bytes] of files) {
    if (!/^(call|index)/.test(name)) continue;
    const text = Buffer.from(bytes).toString();
    assert.doesNotMatch(text, /sourceMappingURL|\/home\/|\/root\/|node_modules/, name);
    if (name.endsWith('.css')) assert.doesNotMatch(text, /url\(|@import/, name);
  }
});

test('a drawing can only hold shapes', async () => {
  const { readDrawing } = await script<Svg>('svg.mjs');
  const wrap = (inner: string) => `<svg viewBox="0 0 1 1">${inner}</svg>`;
  assert.equal(readDrawing(wrap('<path d="M0 0"/>'), 'x').shapes.length, 1);
  for (const bad of [
    '<script/>',
    '<path d="M0 0" onload="x"/>',
    '<path d="M0 0" style="fill:red"/>',
    '<use href="#x"/>',
    '<g><path d="M0 0"/></g>',
    '<path d="M0 0" fill="url(&quot;x&quot;)"/>',
    'words',
  ]) {
    assert.throws(() => readDrawing(wrap(bad), 'x'), bad);
  }
});
