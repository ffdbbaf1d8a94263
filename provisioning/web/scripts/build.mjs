// Builds the call page: provisioning/web/dist/call, static files that any host can serve.
//
//   node scripts/build.mjs            build
//   node scripts/build.mjs --release  build, and write the bundle's hash to call.sha256
//
// The same inputs give the same bytes: names carry the content's hash, nothing carries a time or a path. index.html is
// the one file that is trusted as it comes; it names script and style with their hashes (Subresource Integrity), and
// the script knows the hashes of the font and of the worker. manifest.json lists every file's SHA-256 and the bundle's:
// the SHA-256 over the lines "<sha256>  <name>\n" of all files, sorted by name, as sha256sum prints them.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { svg } from './svg.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const require = createRequire(import.meta.url);

// livekit-client 2.23.0's frame-encryption worker, shipped as it is. A new version is read (src/media/strictworker.ts
// says what to look for) before this value changes.
const workerSha256 = '1f24fcb70cac98f0dd75b5b076f5f2acdd05b0cd81b1f6d62401817bb161d8a5';

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');
const integrity = (bytes) => `sha384-${createHash('sha384').update(bytes).digest('base64')}`;

/** Other packages than the lockfile's would make another page: refused here, where it can be said why. */
function checkInstalled() {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  for (const [folder, { version, optional }] of Object.entries(packages)) {
    if (!folder || optional) continue;
    let found = 'nothing';
    try {
      found = JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')).version;
    } catch {
      // told below
    }
    if (found !== version) throw new Error(`${folder} holds ${found}, package-lock.json says ${version}: run npm ci`);
  }
}

/** Adds a file under a name that carries its hash, and returns what refers to it. */
function put(files, name, extension, bytes) {
  const file = `${name}-${sha256(bytes).slice(0, 16)}.${extension}`;
  files.set(file, bytes);
  return { file, integrity: integrity(bytes) };
}

function packageFile(name) {
  return readFileSync(require.resolve(name));
}

function worker(files) {
  const bytes = readFileSync(
    join(dirname(require.resolve('livekit-client')), 'livekit-client.e2ee.worker.js'),
  );
  const found = sha256(bytes);
  if (found !== workerSha256) {
    throw new Error(`livekit-client.e2ee.worker.js has SHA-256 ${found}, not the one that was read (${workerSha256})`);
  }
  return put(files, 'worker', 'js', bytes);
}

async function bundle(entry, define = {}) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    write: false,
    minify: true,
    format: 'esm',
    target: ['es2022'],
    charset: 'utf8',
    legalComments: 'none',
    define,
    plugins: [svg],
    logLevel: 'warning',
  });
  return Buffer.from(result.outputFiles[0].contents);
}

function page({ title, noscript }, script, style) {
  return `<!doctype html>
<html lang="en" dir="ltr">
<head>
<meta charset="utf-8">
<title>${title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover, interactive-widget=resizes-content">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex, nofollow, noarchive">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="${style.file}" integrity="${style.integrity}" crossorigin="anonymous">
<script type="module" src="${script.file}" integrity="${script.integrity}" crossorigin="anonymous"></script>
</head>
<body><noscript><p>${noscript}</p></noscript></body>
</html>
`;
}

async function callPage() {
  checkInstalled();
  const files = new Map();
  const messages = JSON.parse(readFileSync(join(root, 'src/messages/en.json'), 'utf8'));
  const assets = {
    worker: worker(files),
    font: put(files, 'inter', 'woff2', packageFile('inter-ui/variable-latin/InterVariable-subset.woff2')),
  };
  const script = put(
    files,
    'call',
    'js',
    await bundle('src/call/main.ts', { __ASSETS__: JSON.stringify(assets) }),
  );
  const style = put(files, 'call', 'css', await bundle('src/call/call.css'));
  files.set('index.html', Buffer.from(page({ title: messages['page.title'], noscript: messages['page.noscript'] }, script, style)));
  files.set('NOTICE.txt', Buffer.from(notice()));
  return files;
}

/** The licences of what the page carries inside, as they ask to be passed on. */
function notice() {
  const carried = [
    '@bufbuild/protobuf', '@hpke/common', '@hpke/core', '@hpke/dhkem-x25519', '@hpke/hybridkem-x-wing',
    '@livekit/mutex', '@livekit/protocol', '@noble/ciphers', '@noble/curves', '@noble/hashes', '@noble/post-quantum',
    'events', 'inter-ui', 'jose', 'livekit-client', 'loglevel', 'lucide-static', 'machina', 'mlkem', 'sdp',
    'sdp-transform', 'tslib', 'typed-emitter', 'webrtc-adapter',
  ];
  const parts = carried.map((name) => {
    const folder = join(root, 'node_modules', name);
    const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
    const texts = readdirSync(folder)
      .filter((file) => /^(licen[cs]e|notice|copying)/i.test(file))
      .sort()
      .map((file) => readFileSync(join(folder, file), 'utf8').trim());
    return [`${name} ${version} (${license})`, ...texts].join('\n\n');
  });
  return `${parts.join(`\n\n${'-'.repeat(80)}\n\n`)}\n`;
}

function manifest(files) {
  const names = [...files.keys()].sort();
  const hashes = Object.fromEntries(names.map((name) => [name, sha256(files.get(name))]));
  const lines = names.map((name) => `${hashes[name]}  ${name}\n`).join('');
  const bundleHash = sha256(lines);
  const text = `${JSON.stringify({ version: 1, bundle: bundleHash, files: hashes }, null, 2)}\n`;
  return { bundleHash, text };
}

/** Writes the folder beside its place and moves it there, so that nobody reads half a page. */
function write(folder, files) {
  const fresh = `${folder}.new`;
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(fresh, name), bytes);
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
}

/** Builds without writing: { files, bundleHash }. */
export async function buildCall() {
  const files = await callPage();
  const { bundleHash, text } = manifest(files);
  files.set('manifest.json', Buffer.from(text));
  return { files, bundleHash };
}

if (process.argv[1] && basename(process.argv[1]) === 'build.mjs') {
  const { files, bundleHash } = await buildCall();
  write(join(root, 'dist', 'call'), files);
  if (process.argv.includes('--release')) writeFileSync(join(root, 'call.sha256'), `${bundleHash}\n`);
  console.log(`call page: ${files.size} files, bundle ${bundleHash}`);
}
