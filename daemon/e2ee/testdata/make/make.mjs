// Seals and opens frames with the unmodified E2EE worker of the npm package livekit-client, in Node. The worker gets the
// globals of a dedicated worker; WebCrypto, streams and everything that touches a frame are Node's and its own.
//
//   node make.mjs frames.json ours.json livekit-client.json
//
// frames.json: frames of encoders; ours.json: frames sealed by package e2ee. Output: the worker's sealed frames, and what
// the worker opens ours to.

import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { runInThisContext } from 'node:vm';

const [framesPath, oursPath, outPath] = process.argv.slice(2);
const { secret, frames } = JSON.parse(readFileSync(framesPath, 'utf8'));
const ours = JSON.parse(readFileSync(oursPath, 'utf8'));
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'));
const hex = (data) => Buffer.from(data).toString('hex');

const dist = dirname(createRequire(import.meta.url).resolve('livekit-client'));
const worker = readFileSync(join(dist, 'livekit-client.e2ee.worker.js'));
const { version } = JSON.parse(readFileSync(join(dist, '..', 'package.json'), 'utf8'));

globalThis.self = globalThis;
globalThis.onmessage = null;
const errors = [];
globalThis.postMessage = (m) => {
  if (m.kind === 'error') errors.push(m.data.error.message);
};
globalThis.RTCEncodedAudioFrame ??= class {};
globalThis.RTCEncodedVideoFrame ??= class {};
runInThisContext(worker.toString('utf8'), { filename: 'livekit-client.e2ee.worker.js' });
const tell = (kind, data) => globalThis.onmessage({ data: { kind, data } });

const material = await crypto.subtle.importKey('raw', bytes(secret), 'HKDF', false, ['deriveBits', 'deriveKey']);
tell('init', {
  loglevel: 'error',
  keyProviderOptions: {
    sharedKey: false, ratchetSalt: 'LKFrameEncryptionKey', ratchetWindowSize: 0, failureTolerance: -1,
    keyringSize: 16, keySize: 128,
  },
});

// One participant per index: a participant's sender uses the index set last.
const sender = (index) => `sender-${index}`;
for (let index = 0; index < 16; index++) {
  tell('enable', { enabled: true, participantIdentity: sender(index) });
  tell('setKey', { participantIdentity: sender(index), key: material, keyIndex: index, updateCurrentKeyIndex: true });
}

// A frame as the browser hands it to the worker. `type` exists on pictures alone: the worker tells them apart by it.
function encoded(codec, data, { ssrc = 0, timestamp = 0 } = {}) {
  const frame = { data: data.slice().buffer, timestamp };
  if (codec !== 'opus') {
    const key = codec === 'vp8' ? (data[0] & 1) === 0 : undefined;
    frame.type = codec === 'vp8' && !key ? 'delta' : 'key';
  }
  frame.getMetadata = () => ({
    synchronizationSource: ssrc, payloadType: 96, mimeType: codec === 'opus' ? 'audio/opus' : `video/${codec}`,
  });
  return frame;
}

// pipes holds one running transform per direction, codec and index.
const pipes = new Map();
function pipe(kind, codec, index) {
  const id = `${kind}-${codec}-${index}`;
  if (!pipes.has(id)) {
    const into = new TransformStream(undefined, undefined, { highWaterMark: 8 });
    const out = new TransformStream(undefined, undefined, { highWaterMark: 8 });
    tell(kind, {
      participantIdentity: sender(index), trackId: id, readableStream: into.readable, writableStream: out.writable,
      ...(codec === 'opus' ? {} : { codec }),
    });
    pipes.set(id, { writer: into.writable.getWriter(), reader: out.readable.getReader() });
  }
  return pipes.get(id);
}

async function transform(kind, codec, index, frame) {
  const { writer, reader } = pipe(kind, codec, index);
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${kind} ${codec} ${index}: no frame came out: ${errors.join('; ')}`)), 5000);
  });
  await Promise.race([writer.write(frame), late]);
  const { value } = await Promise.race([reader.read(), late]);
  clearTimeout(timer);
  return new Uint8Array(value.data);
}

// Emulation prevention: within the ciphertext it is waited for, within the IV it is forced by a small SSRC.
const escaped = (sealed, tail) => {
  const end = sealed.length - tail;
  for (let i = 50; i + 3 < end; i++) {
    if (sealed[i] === 0 && sealed[i + 1] === 0 && sealed[i + 2] === 3 && sealed[i + 3] <= 3) return true;
  }
  return false;
};

const sealed = [];
async function seal(name, frame, index, iv, accept = () => true) {
  for (let attempt = 0; attempt < 1e6; attempt++) {
    const options = { ...iv, timestamp: (iv.timestamp + 3000 * attempt) >>> 0 };
    const out = await transform('encode', frame.codec, index, encoded(frame.codec, bytes(frame.frame), options));
    if (!accept(out)) continue;
    const opened = await transform('decode', frame.codec, index, encoded(frame.codec, out));
    sealed.push({ name, codec: frame.codec, index, sealed: hex(out), opened: hex(opened) });
    return;
  }
  throw new Error(`${name}: no such frame found`);
}

for (const [i, frame] of frames.entries()) {
  await seal(frame.name, frame, (3 * i) % 16, { ssrc: 0x5eed0000 + i, timestamp: 0xfffff000 + i });
}
const h264 = frames.filter((f) => f.codec === 'h264');
await seal('h264 escape in the iv', h264[0], 3, { ssrc: 0, timestamp: 1 });
await seal('h264 escape in the ciphertext', h264[0], 0, { ssrc: 0x11223344, timestamp: 0x10203040 }, (s) => escaped(s, 40));
await seal('h264 escapes in both', h264[1], 1, { ssrc: 2, timestamp: 0x01020304 }, (s) => escaped(s, 40));

const opened = [];
for (const { name, codec, index, sealed: data } of ours) {
  opened.push({ name, opened: hex(await transform('decode', codec, index, encoded(codec, bytes(data)))) });
}
if (errors.length) throw new Error(errors.join('; '));

writeFileSync(outPath, JSON.stringify({
  maker: `livekit-client ${version}, livekit-client.e2ee.worker.js in Node`,
  worker_sha256: createHash('sha256').update(worker).digest('hex'),
  sealed, opened,
}, null, 1) + '\n');
process.exit(0);
