// Bundles every src/**/*.test.ts for Node and runs them with Node's test runner.
// Arguments are folders or files below src to run alone: node test.mjs agreement trust
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { svg } from './scripts/svg.mjs';

const root = dirname(fileURLToPath(import.meta.url));
const src = join(root, 'src');

function testsBelow(path) {
  if (statSync(path).isFile()) return [path];
  return readdirSync(path, { recursive: true })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => join(path, name));
}

const wanted = process.argv.slice(2);
const entryPoints = (wanted.length ? wanted.map((name) => join(src, name)) : [src]).flatMap(testsBelow).sort();
if (entryPoints.length === 0) {
  console.error('no tests found');
  process.exit(1);
}
// Below the package, so that packages left outside the bundle resolve.
const out = mkdtempSync(join(root, 'node_modules', '.test-'));
try {
  await build({
    entryPoints,
    outdir: out,
    outbase: src,
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: 'node20',
    sourcemap: 'inline',
    outExtension: { '.js': '.mjs' },
    plugins: [svg],
    logLevel: 'warning',
  });
  const files = entryPoints.map((path) => join(out, relative(src, path).replace(/\.ts$/, '.mjs')));
  const run = spawnSync(process.execPath, ['--enable-source-maps', '--test', ...files], {
    stdio: 'inherit',
    cwd: root,
  });
  process.exitCode = run.status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
