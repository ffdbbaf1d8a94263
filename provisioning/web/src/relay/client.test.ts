import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { RelayClient, type RelayEvents, type Socket } from './client.ts';
import type { FromHub } from './messages.ts';

class FalseSocket implements Socket {
  binaryType = '';
  readyState = 0;
  onopen: Socket['onopen'] = null;
  onclose: Socket['onclose'] = null;
  onerror: Socket['onerror'] = null;
  onmessage: Socket['onmessage'] = null;
  readonly sent: (string | Uint8Array)[] = [];
  closed = false;

  send(data: string | Uint8Array<ArrayBuffer>): void {
    this.sent.push(data);
  }
  close(): void {
    this.closed = true;
  }
  open(): void {
    this.readyState = 1;
    this.onopen?.(new Event('open'));
  }
  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  end(code: number): void {
    this.onclose?.({ code });
  }
}

const welcome = {
  t: 'welcome',
  sid: 'AAAAAAAAAAAAAAAAAAAAAA',
  clinic: '00',
  participant: { id: 'p', role: 'patient', name: 'Maria' },
  room: { label: 'Room 3' },
  state: 'waiting',
};

function running(context: { after(f: () => void): void }) {
  mock.timers.enable({ apis: ['setTimeout', 'setInterval', 'Date'] });
  let now = 1000;
  const clock = mock.method(performance, 'now', () => now);
  const sockets: FalseSocket[] = [];
  const log: unknown[][] = [];
  const events: RelayEvents = {
    control: (m: FromHub) => log.push(['control', m.t]),
    relayed: (m) => log.push(['relayed', ...m]),
    up: (down) => log.push(['up', Math.round(down)]),
    down: () => log.push(['down']),
    stopped: (why) => log.push(['stopped', why]),
    malformed: () => log.push(['malformed']),
  };
  const connect = (url: string, protocol: string) => {
    assert.equal(url, 'wss://hub/v1/relay');
    assert.equal(protocol, 'alcove.relay.v1');
    const socket = new FalseSocket();
    sockets.push(socket);
    return socket;
  };
  const client = new RelayClient({ url: 'wss://hub/v1/relay', bearer: 'secret', events, connect });
  context.after(() => {
    client.stop();
    clock.mock.restore();
    mock.timers.reset();
  });
  const pass = (ms: number) => {
    for (let left = ms; left > 0; left -= 50) {
      now += 50;
      mock.timers.tick(50);
    }
  };
  const last = () => sockets.at(-1)!;
  const greet = () => {
    last().open();
    last().say(welcome);
  };
  return { client, sockets, log, pass, last, greet };
}

test('says hello first and nothing before the welcome', (t) => {
  const r = running(t);
  r.client.start();
  assert.equal(r.client.send({ t: 'knock', d: 'ab' }), false);
  r.last().open();
  assert.deepEqual(r.last().sent, ['{"t":"hello","bearer":"secret"}']);
  assert.equal(r.client.send({ t: 'knock', d: 'ab' }), false);
  assert.equal(r.client.relay(new Uint8Array(3)), false);
  r.last().say(welcome);
  assert.equal(r.client.send({ t: 'knock', d: 'ab' }), true);
  assert.equal(r.client.relay(Uint8Array.of(1, 2)), true);
  assert.deepEqual(r.log, [['up', 0], ['control', 'welcome']]);
});

test('passes members’ messages on only after the welcome', (t) => {
  const r = running(t);
  r.client.start();
  r.last().open();
  r.last().onmessage!({ data: Uint8Array.of(9).buffer });
  r.last().say(welcome);
  r.last().onmessage!({ data: Uint8Array.of(7, 8).buffer });
  r.last().onmessage!({ data: new ArrayBuffer(64 * 1024 + 1) });
  assert.deepEqual(r.log.filter(([what]) => what === 'relayed'), [['relayed', 7, 8]]);
});

test('drops what is not of the protocol', (t) => {
  const r = running(t);
  r.client.start();
  r.greet();
  const before = r.log.length;
  for (const text of ['{', '{"t":"admitted"}', '{"t":"new"}', '{"t":"waiting","x":1}', '{"t":"waiting","T":"x"}']) {
    r.last().onmessage!({ data: text });
  }
  assert.deepEqual(r.log.slice(before).map(([what]) => what), Array(5).fill('malformed'));
});

test('an unanswered probe ends the connection within 4 s, and a new one is tried until the hub is back', (t) => {
  const r = running(t);
  r.client.start();
  r.greet();
  r.pass(1000);
  assert.equal(r.last().sent.at(-1), '{"t":"ping","n":0}');
  r.last().say({ t: 'pong', n: 0 });
  r.pass(4100);
  assert.deepEqual(r.log.at(-1), ['down']);
  assert.equal(r.client.isUp, false);
  assert.equal(r.sockets[0]!.closed, true);
  const before = r.sockets.length;
  r.pass(20_000);
  const tries = r.sockets.length - before;
  assert.ok(tries >= 4 && tries <= 20, `${tries} tries in 20 s`);
  r.client.wake();
  r.greet();
  const [what, down] = r.log.findLast(([w]) => w === 'up')!;
  assert.equal(what, 'up');
  assert.ok((down as number) > 20_000);
  assert.equal(r.client.isUp, true);
});

test('a closed connection is tried again within a second', (t) => {
  const r = running(t);
  r.client.start();
  r.greet();
  r.last().end(1006);
  assert.deepEqual(r.log.at(-1), ['down']);
  r.pass(350);
  assert.equal(r.sockets.length, 2);
  r.greet();
  assert.equal(r.log.filter(([w]) => w === 'up').length, 2);
});

test('a bearer that is used elsewhere, or has ended, is not dialled again', (t) => {
  for (const [code, why] of [
    [4001, 'replaced'],
    [4005, 'refused'],
  ] as const) {
    const r = running(t);
    r.client.start();
    r.greet();
    r.last().end(code);
    r.pass(10_000);
    assert.deepEqual(r.log.at(-1), ['stopped', why]);
    assert.equal(r.sockets.length, 1);
    mock.timers.reset();
    mock.restoreAll();
  }
});

test('an old socket says nothing any more', (t) => {
  const r = running(t);
  r.client.start();
  r.greet();
  const old = r.last();
  r.client.stop();
  assert.equal(old.onmessage, null);
  assert.equal(old.onclose, null);
});
