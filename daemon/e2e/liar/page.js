// Added before the page's own scripts: a clock that can leap, and a record of what came out of the page's sockets. The
// page's code is not touched and cannot tell.
window.liar = (() => {
  const machine = {
    now: performance.now.bind(performance),
    date: Date.now.bind(Date),
    set: setTimeout.bind(window),
    clear: clearTimeout.bind(window),
  };
  let ahead = 0;
  let last = 1_000_000;
  const timers = new Map();
  const now = () => machine.now() + ahead;
  const arm = (id, t) => {
    machine.clear(t.handle);
    t.handle = machine.set(() => fire(id, t), Math.max(0, t.at - now()));
  };
  const fire = (id, t) => {
    if (timers.get(id) !== t) return;
    if (t.every === undefined) timers.delete(id);
    else {
      t.at = now() + t.every;
      arm(id, t);
    }
    t.run();
  };
  const timer = (run, after, every) => {
    const id = ++last;
    const t = { run, at: now() + Math.max(0, Number(after) || 0), every };
    timers.set(id, t);
    arm(id, t);
    return id;
  };
  const clear = (id) => {
    const t = timers.get(id);
    if (t) machine.clear(t.handle);
    timers.delete(id);
  };
  performance.now = now;
  window.Date = new Proxy(Date, {
    construct: (target, args, self) => Reflect.construct(target, args.length ? args : [target.now()], self),
  });
  Date.now = () => machine.date() + ahead;
  window.setTimeout = (f, after, ...args) => timer(() => f(...args), after);
  window.setInterval = (f, every, ...args) => timer(() => f(...args), every, Math.max(1, Number(every) || 0));
  window.clearTimeout = window.clearInterval = clear;

  const sleep = (ms) => new Promise((resolve) => machine.set(resolve, ms));
  const leap = async (ms, wait) => {
    ahead += ms;
    const due = [...timers].filter(([, t]) => t.at <= now()).sort(([, a], [, b]) => a.at - b.at);
    for (const [id, t] of due) fire(id, t);
    for (const [id, t] of timers) arm(id, t);
    await sleep(wait);
    return look();
  };

  // What the relay's sockets and the joining delivered to this page.
  const received = [];
  const counted = { in: 0, out: 0 };
  window.WebSocket = new Proxy(WebSocket, {
    construct(target, args, self) {
      const socket = Reflect.construct(target, args, self);
      if (args[1] !== 'alcove.relay.v1') return socket;
      const { send } = socket;
      counted.in = counted.out = 0;
      socket.addEventListener('message', (e) => {
        counted.in++;
        received.push(e.data);
      });
      socket.send = (data) => {
        counted.out++;
        send.call(socket, data);
      };
      return socket;
    },
  });
  // Whether the page computes: the key agreement waits for WebCrypto, and is not to be overtaken by a leap.
  let computing = 0;
  for (const name of Object.getOwnPropertyNames(SubtleCrypto.prototype)) {
    const native = SubtleCrypto.prototype[name];
    if (typeof native !== 'function' || name === 'constructor') continue;
    SubtleCrypto.prototype[name] = function (...args) {
      computing++;
      const result = native.apply(this, args);
      const done = () => machine.set(() => computing--, 0);
      result.then(done, done);
      return result;
    };
  }
  const fetched = window.fetch.bind(window);
  window.fetch = async (...args) => {
    const response = await fetched(...args);
    if (String(args[0]).endsWith('/v1/join')) received.push(await response.clone().arrayBuffer());
    return response;
  };
  const digests = async () => {
    const out = [];
    for (const data of received) {
      const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : new Uint8Array(data);
      const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
      out.push([...hash].map((b) => b.toString(16).padStart(2, '0')).join(''));
    }
    return out;
  };

  const connections = [];
  window.RTCPeerConnection = new Proxy(window.RTCPeerConnection, {
    construct(target, args, self) {
      const connection = Reflect.construct(target, args, self);
      connections.push(connection);
      return connection;
    },
  });
  /** Packets of sound and picture that have left this page. */
  const sent = async () => {
    let packets = 0;
    for (const c of connections) {
      if (c.connectionState === 'closed') continue;
      for (const s of (await c.getStats()).values()) if (s.type === 'outbound-rtp') packets += s.packetsSent;
    }
    return packets;
  };
  const flow = async (ms) => {
    const before = await sent();
    await sleep(ms);
    return (await sent()) - before;
  };

  const look = () => ({
    screen: document.documentElement.dataset.screen ?? '',
    code: document.querySelector('.stage .code')?.textContent ?? '',
    people: document.querySelectorAll('.person').length,
    computing,
    in: counted.in,
    out: counted.out,
    words: document.querySelector('main .code-footer')?.textContent ?? '',
  });
  /** From the link to the lobby. A page without devices is a computer without camera and microphone. */
  const enter = async (devices) => {
    if (!devices) {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('none', 'NotFoundError'));
    }
    for (let left = 4000; left > 0; left--) {
      const { screen } = look();
      if (screen === 'waiting' || screen === 'notice') return look();
      if (screen === 'welcome' || screen === 'ask' || screen === 'check') {
        const button = document.querySelector('.button.primary:not([disabled])');
        if (button?.checkVisibility()) button.click();
      }
      await sleep(3);
    }
    return look();
  };
  return { leap, look, enter, digests, flow };
})();
