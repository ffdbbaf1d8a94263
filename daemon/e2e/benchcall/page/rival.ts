// The rival: a browser that publishes with livekit-client as it comes, with livekit-client's own frame encryption and one
// shared key. Its picture is a canvas with the stamp of mediacap/capturetest in it, of the room's size and rate, over a
// background and a moving disc like the room's; its sound is the browser's fake microphone.

import { ExternalE2EEKeyProvider, LogLevel, Room, RoomEvent, Track, setLogLevel } from 'livekit-client';

interface Wish {
  readonly url: string;
  readonly token: string;
  readonly secret: string;
  readonly width: number;
  readonly height: number;
  readonly fps: number;
  readonly videoBits: number;
  readonly audioBits: number;
}

setLogLevel(LogLevel.silent);

const grid = { columns: 40, left: 4, top: 1, stampColumns: 32, stampRows: 3 };

function crc16(bytes: Uint8Array): number {
  let crc = 0xffff;
  for (const b of bytes) {
    crc ^= b << 8;
    for (let i = 0; i < 8; i++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc;
}

function stamp(counter: number, clock: number): Uint8Array {
  const bytes = new Uint8Array(12);
  const v = new DataView(bytes.buffer);
  v.setUint32(0, counter);
  v.setUint16(4, Math.floor(clock / 2 ** 32));
  v.setUint32(6, clock >>> 0);
  v.setUint16(10, crc16(bytes.subarray(0, 10)));
  return bytes;
}

function background(width: number, height: number): ImageData {
  const image = new ImageData(width, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const luma = 60 + (60 * x) / width + (40 * y) / height + 6 * (((x >> 3) + (y >> 3)) % 2);
      image.data.set([luma + 20 - (40 * y) / height, luma, luma - 15 + (50 * x) / width, 255], (y * width + x) * 4);
    }
  }
  return image;
}

function painter(g: CanvasRenderingContext2D): () => void {
  const { width, height } = g.canvas;
  const still = background(width, height);
  const edge = (cell: number) => Math.floor((cell * width) / grid.columns);
  let counter = 0;
  return () => {
    g.putImageData(still, 0, 0);
    const phase = ((counter % 2 ** 20) * 2 * Math.PI) / 90;
    const top = (13 * width) / grid.columns;
    const radius = (height - top) * 0.3;
    const x = width / 2 + (width / 2 - radius) * Math.sin(phase);
    const y = top + (height - top) / 2 + ((height - top) / 2 - radius) * Math.sin(2 * phase);
    g.fillStyle = counter % 16 < 8 ? '#c89628' : '#e0c8a0';
    g.beginPath();
    g.arc(x, y, radius, 0, 2 * Math.PI);
    g.fill();
    const bytes = stamp(counter++, Date.now());
    for (let row = 0; row < grid.stampRows; row++) {
      for (let column = 0; column < grid.stampColumns; column++) {
        const bit = row * grid.stampColumns + column;
        g.fillStyle = bytes[bit >> 3]! & (0x80 >> (bit & 7)) ? '#fff' : '#000';
        const x0 = edge(grid.left + column);
        const y0 = edge(grid.top + row);
        g.fillRect(x0, y0, edge(grid.left + column + 1) - x0, edge(grid.top + row + 1) - y0);
      }
    }
  };
}

async function publish(w: Wish): Promise<void> {
  const canvas = document.querySelector('canvas')!;
  canvas.width = w.width;
  canvas.height = w.height;
  const paint = painter(canvas.getContext('2d', { alpha: false, willReadFrequently: true })!);
  const began = performance.now();
  let frame = 0;
  const next = () => {
    paint();
    setTimeout(next, Math.max(0, began + (++frame * 1000) / w.fps - performance.now()));
  };
  next();

  const keyProvider = new ExternalE2EEKeyProvider();
  await keyProvider.setKey(Uint8Array.from(atob(w.secret), (c) => c.charCodeAt(0)).buffer);
  const room = new Room({
    e2ee: { keyProvider, worker: new Worker('worker.js') },
    publishDefaults: {
      videoCodec: 'vp8',
      backupCodec: false,
      simulcast: false,
      videoEncoding: { maxBitrate: w.videoBits, maxFramerate: w.fps },
      audioPreset: { maxBitrate: w.audioBits },
      dtx: false,
      red: false,
      forceStereo: false,
    },
  });
  await room.setE2EEEnabled(true);
  await room.connect(w.url, w.token);
  const [picture] = canvas.captureStream().getVideoTracks();
  const published = await room.localParticipant.publishTrack(picture!, { source: Track.Source.Camera });
  const [sound] = (await navigator.mediaDevices.getUserMedia({ audio: true })).getAudioTracks();
  await room.localParticipant.publishTrack(sound!, { source: Track.Source.Microphone });
  room.on(RoomEvent.DataReceived, () => {
    const sender = published.track?.sender;
    if (!sender) return;
    const parameters = sender.getParameters();
    const set = sender.setParameters.bind(sender) as (p: RTCRtpSendParameters, o: object) => Promise<void>;
    void set(parameters, { encodingOptions: parameters.encodings.map(() => ({ keyFrame: true })) }).catch(() => undefined);
  });
}

Object.assign(globalThis, { rival: { publish } });
