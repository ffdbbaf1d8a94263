// Entry of the call page: wiring only.

import { LogLevel, setLogLevel } from 'livekit-client';
import { Connection, type CallWorker } from '../media/connection.ts';
import { guardScriptTransform, strictOver } from '../media/strictworker.ts';
import { fetchClinic, newMember } from './agreement.ts';
import { checkWorker, loadFont, trustedWorkerUrl } from './assets.ts';
import { Session } from './session.ts';
import { missingSupport } from './support.ts';

const StrictWorker = strictOver(Worker as unknown as Parameters<typeof strictOver>[0]);

const newWorker = () => new StrictWorker(trustedWorkerUrl()) as unknown as CallWorker;

// livekit-client writes identities and addresses to the console.
setLogLevel(LogLevel.silent);
guardScriptTransform(globalThis as { RTCRtpScriptTransform?: unknown }, (worker) => worker instanceof StrictWorker);
void loadFont().catch(() => undefined);

async function support(): Promise<'browser' | 'media' | undefined> {
  const missing = await missingSupport();
  if (missing) return missing;
  return checkWorker().then(
    () => undefined,
    () => 'browser',
  );
}

const session = new Session({
  root: document.body,
  fragment: location.hash,
  support,
  openClinic: fetchClinic,
  makeAgreement: newMember,
  makeConnection: (own, ring, events) => new Connection(own, newWorker(), ring, events),
});

addEventListener('pagehide', () => session.hide());
addEventListener('online', () => session.wake());
// Only in a session: a reload makes this person a newcomer who has to be let in again.
addEventListener('beforeunload', (event) => {
  if (session.state.screen === 'call') event.preventDefault();
});
addEventListener('hashchange', () => location.reload());
void session.start();
