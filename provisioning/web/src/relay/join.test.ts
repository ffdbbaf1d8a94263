import assert from 'node:assert/strict';
import { test } from 'node:test';
import { join, JoinError, readLink, relayUrl } from './join.ts';

const clinic = 'ab'.repeat(32);
const fragment = (h: string, i = 'A'.repeat(22), c = clinic) => `#h=${encodeURIComponent(h)}&i=${i}&c=${c}`;

test('reads a whole link', () => {
  const link = readLink(fragment('https://people.clinic.example:8443'));
  assert.equal(link.hub.origin, 'https://people.clinic.example:8443');
  assert.equal(link.invitation, 'A'.repeat(22));
  assert.equal(link.clinic[31], 0xab);
  assert.equal(relayUrl(link), 'wss://people.clinic.example:8443/v1/relay');
  assert.equal(relayUrl(readLink(fragment('http://127.0.0.1:8081'))), 'ws://127.0.0.1:8081/v1/relay');
});

test('refuses a link that is not whole, or leads over a clear line', () => {
  for (const bad of [
    '',
    '#h=https%3A%2F%2Fx&i=AAAAAAAAAAAAAAAAAAAAAA',
    `${fragment('https://x')}&d=1`,
    `${fragment('https://x')}&c=${clinic}`,
    fragment('http://hub.clinic.example'),
    fragment('https://user@hub.clinic.example'),
    fragment('https://hub.clinic.example/?x=1'),
    fragment('javascript:alert(1)'),
    fragment('https://x', 'short'),
    fragment('https://x', 'A'.repeat(22), clinic.toUpperCase()),
    fragment('https://x', 'A'.repeat(22), 'ab'),
  ]) {
    assert.throws(() => readLink(bad), bad);
  }
});

const joined = {
  bearer: 'b',
  participant: { id: 'p', role: 'patient', name: 'Maria' },
  session: { sid: 'A'.repeat(22), clinic, starts: '2026-01-01T10:00:00Z', ends: '2026-01-01T11:00:00Z' },
  room: { label: 'Room 3' },
  demo: true,
};

function answering(status: number, body: unknown): typeof fetch {
  return async (url, init) => {
    assert.equal(String(url), 'https://x/v1/join');
    assert.equal(init?.method, 'POST');
    assert.equal(init?.credentials, 'include');
    return new Response(JSON.stringify(body), { status });
  };
}

const why = (request: typeof fetch) =>
  join(readLink(fragment('https://x')), request).then(
    () => 'joined',
    (error: JoinError) => error.why,
  );

test('joins with a POST', async () => {
  const j = await join(readLink(fragment('https://x')), answering(200, joined));
  assert.equal(j.room, 'Room 3');
  assert.equal(j.demo, true);
  assert.equal(j.session.ends.toISOString(), '2026-01-01T11:00:00.000Z');
});

test('says why it did not join', async () => {
  const refusal = (error: string) => ({ error, message: 'x' });
  assert.equal(await why(answering(410, refusal('used'))), 'used');
  assert.equal(await why(answering(410, refusal('over'))), 'over');
  assert.equal(await why(answering(404, refusal('unknown'))), 'unknown');
  assert.equal(await why(answering(425, refusal('early'))), 'early');
  assert.equal(await why(answering(429, refusal('slow_down'))), 'slow_down');
  assert.equal(await why(answering(403, refusal('origin'))), 'other');
  assert.equal(await why(answering(503, {})), 'unreachable');
  assert.equal(await why(async () => Promise.reject(new TypeError('no line'))), 'unreachable');
  assert.equal(await why(answering(200, { ...joined, more: 1 })), 'other');
});
