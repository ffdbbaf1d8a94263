import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { Line, type LineConnection } from './line.ts';

const admission = { url: 'ws://sfu', token: 't', identity: 'me' };

class FalseConnection implements LineConnection {
  isConnected = false;
  closed = false;
  #settle!: { resolve(): void; reject(error: Error): void };
  readonly #promise = new Promise<void>((resolve, reject) => (this.#settle = { resolve, reject }));

  connect(): Promise<void> {
    return this.#promise;
  }
  close(): void {
    this.closed = true;
  }
  async succeed(): Promise<void> {
    this.isConnected = true;
    this.#settle.resolve();
    await new Promise(setImmediate);
  }
  async fail(): Promise<void> {
    this.#settle.reject(new Error('no way'));
    await new Promise(setImmediate);
  }
}

function running(context: { after(f: () => void): void }) {
  mock.timers.enable({ apis: ['setTimeout'] });
  const made: FalseConnection[] = [];
  const log: string[] = [];
  let reachable = true;
  const line = new Line<FalseConnection>({
    make: () => made[made.push(new FalseConnection()) - 1]!,
    requestToken: () => log.push('token') > 0,
    reachable: () => reachable,
    connected: () => log.push('connected'),
    disconnected: () => log.push('disconnected'),
  });
  context.after(() => {
    line.stop();
    mock.timers.reset();
  });
  return { line, made, log, setReachable: (r: boolean) => (reachable = r) };
}

test('each connection is a new one with a fresh token, at once after a loss', async (t) => {
  const r = running(t);
  void r.line.admitted(admission);
  assert.equal(r.line.current, undefined);
  await r.made[0]!.succeed();
  assert.equal(r.line.current, r.made[0]);
  r.line.lost();
  assert.equal(r.made[0]!.closed, true);
  assert.deepEqual(r.log, ['connected', 'disconnected']);
  mock.timers.tick(1);
  assert.deepEqual(r.log.at(-1), 'token');
  void r.line.admitted(admission);
  await r.made[1]!.succeed();
  assert.notEqual(r.made[0], r.made[1]);
  assert.equal(r.line.current, r.made[1]);
});

test('a failed try is followed by others, at most a second apart', async (t) => {
  const r = running(t);
  void r.line.admitted(admission);
  await r.made[0]!.fail();
  assert.equal(r.made[0]!.closed, true);
  mock.timers.tick(300);
  assert.deepEqual(r.log, ['token']);
  for (let i = 0; i < 10; i++) mock.timers.tick(1000);
  assert.ok(r.log.length >= 10, 'asks again when no token comes');
});

test('while the hub is out of reach nothing is asked for', async (t) => {
  const r = running(t);
  void r.line.admitted(admission);
  await r.made[0]!.succeed();
  r.setReachable(false);
  r.line.lost();
  for (let i = 0; i < 20; i++) mock.timers.tick(1000);
  assert.equal(r.log.includes('token'), false);
  r.setReachable(true);
  r.line.reachableAgain(false);
  mock.timers.tick(1);
  assert.equal(r.log.at(-1), 'token');
});

test('a connection over which media arrives outlives a cut of the relay; a silent one does not', async (t) => {
  const r = running(t);
  void r.line.admitted(admission);
  await r.made[0]!.succeed();
  r.line.reachableAgain(true);
  assert.equal(r.line.current, r.made[0]);
  r.line.reachableAgain(false);
  assert.equal(r.made[0]!.closed, true);
});

test('a connection that succeeds after stop is closed', async (t) => {
  const r = running(t);
  void r.line.admitted(admission);
  r.line.stop();
  await r.made[0]!.succeed();
  assert.equal(r.made[0]!.closed, true);
  assert.deepEqual(r.log, []);
});

test('a second token while connecting makes no second connection', (t) => {
  const r = running(t);
  void r.line.admitted(admission);
  void r.line.admitted(admission);
  assert.equal(r.made.length, 1);
});
