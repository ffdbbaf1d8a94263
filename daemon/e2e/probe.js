// Looks at a page from outside: it is added before the page's own scripts run and touches nothing of theirs.
window.probe = (() => {
  const cells = { grid: 40, left: 4, top: 1, columns: 32, rows: 3 };
  const canvas = document.createElement('canvas');
  const crc16 = (bytes) => {
    let crc = 0xffff;
    for (const b of bytes) {
      crc ^= b << 8;
      for (let i = 0; i < 8; i++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
    }
    return crc;
  };
  // The stamp of mediacap/capturetest, read from the picture as it is shown.
  const stampOf = (video) => {
    const { videoWidth: w, videoHeight: h } = video;
    if (w < cells.grid) return null;
    canvas.width = w;
    canvas.height = Math.ceil((w / cells.grid) * (cells.top + cells.rows));
    if (canvas.height > h) return null;
    const g = canvas.getContext('2d', { willReadFrequently: true });
    g.drawImage(video, 0, 0);
    const { data } = g.getImageData(0, 0, canvas.width, canvas.height);
    const edge = (cell) => Math.floor((cell * w) / cells.grid);
    const bytes = new Uint8Array(12);
    for (let row = 0; row < cells.rows; row++) {
      for (let column = 0; column < cells.columns; column++) {
        const x0 = edge(cells.left + column), x1 = edge(cells.left + column + 1);
        const y0 = edge(cells.top + row), y1 = edge(cells.top + row + 1);
        const inset = Math.floor(Math.min(x1 - x0, y1 - y0) / 4);
        let sum = 0, n = 0;
        for (let y = y0 + inset; y < y1 - inset; y++) {
          for (let x = x0 + inset; x < x1 - inset; x++) {
            const i = (y * w + x) * 4;
            sum += 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
            n++;
          }
        }
        const bit = row * cells.columns + column;
        if (sum / n > 127) bytes[bit >> 3] |= 0x80 >> (bit & 7);
      }
    }
    if (crc16(bytes.subarray(0, 10)) !== ((bytes[10] << 8) | bytes[11])) return null;
    const v = new DataView(bytes.buffer);
    return { counter: v.getUint32(0), clock: v.getUint16(4) * 2 ** 32 + v.getUint32(6) };
  };
  const remoteVideos = () => [...document.querySelectorAll('.tile video')];
  const remoteAudios = () => [...document.querySelectorAll('.tile audio')];
  // Every peer connection of the page, to read its statistics.
  const connections = [];
  window.RTCPeerConnection = new Proxy(window.RTCPeerConnection, {
    construct(target, args, self) {
      const pc = Reflect.construct(target, args, self);
      connections.push(pc);
      return pc;
    },
  });
  // Every track of a camera or microphone that the page opened.
  const opened = [];
  const ask = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (ask) {
    navigator.mediaDevices.getUserMedia = async (constraints) => {
      const stream = await ask(constraints);
      opened.push(...stream.getTracks());
      return stream;
    };
  }
  const stats = async (type) => {
    const out = [];
    for (const pc of connections) {
      if (pc.connectionState === 'closed') continue;
      for (const s of (await pc.getStats()).values()) if (s.type === type) out.push(s);
    }
    return out;
  };
  const state = { first: 0, stamps: [], watching: new WeakSet() };
  const watch = (video) => {
    if (state.watching.has(video)) return;
    state.watching.add(video);
    const step = (now, meta) => {
      state.first ||= performance.timeOrigin + now;
      const stamp = stampOf(video);
      if (stamp) state.stamps.push({ ...stamp, shown: performance.timeOrigin + meta.expectedDisplayTime });
      if (state.stamps.length > 4000) state.stamps.splice(0, 1000);
      video.requestVideoFrameCallback(step);
    };
    video.requestVideoFrameCallback(step);
  };
  setInterval(() => document.querySelectorAll('video:not(.self)').forEach(watch), 5);
  // Records what an element plays: 48 kHz mono, with the time of the first sample.
  const record = async (element, seconds) => {
    const context = new AudioContext({ sampleRate: 48000 });
    await context.resume();
    const source = context.createMediaStreamSource(element.srcObject);
    const tap = context.createScriptProcessor(4096, 1, 1);
    const parts = [];
    let began = 0;
    await new Promise((done) => {
      tap.onaudioprocess = (e) => {
        began ||= Date.now();
        parts.push(e.inputBuffer.getChannelData(0).slice());
        if (parts.length * 4096 >= seconds * 48000) done();
      };
      source.connect(tap);
      tap.connect(context.destination);
    });
    source.disconnect();
    await context.close();
    const pcm = new Int16Array(parts.length * 4096);
    parts.forEach((p, i) => p.forEach((v, j) => (pcm[i * 4096 + j] = Math.max(-1, Math.min(1, v)) * 32767)));
    const bytes = new Uint8Array(pcm.buffer);
    let text = '';
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return { began, pcm: btoa(text) };
  };
  return {
    stamps: () => state.stamps,
    clear: () => void (state.stamps = []),
    first: () => state.first,
    counter: () => state.stamps.at(-1)?.counter ?? -1,
    videos: () => remoteVideos().length,
    record: (seconds) => {
      const playing = remoteAudios().find((a) => a.srcObject);
      return playing ? record(playing, seconds) : null;
    },
    recordElement: record,
    stats,
    devices: () => opened.map(({ kind, readyState, enabled }) => ({ kind, readyState, enabled })),
    connections: () => connections.length,
  };
})();
