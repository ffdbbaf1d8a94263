// People and states for tests of the call page.

import { initial, reduce, type Agreed, type Event, type Person, type State } from './state.ts';

export const room: Person = {
  identity: 'room',
  role: 'device',
  name: 'Room 3',
  level: 3,
  verified: 3,
  self: false,
  compared: false,
  comparedBy: '',
};

export const me: Person = { ...room, identity: 'me', role: 'patient', name: 'Maria', level: 1, verified: 1, self: true };

export const guest: Person = { ...me, identity: 'guest', role: 'guest', name: 'Sam', self: false };

export function agreedOn(...people: readonly Person[]): Agreed {
  return { people, code: '4F7K-9QRD', pictures: [18, 32, 26, 20], digits: '0482 1773' };
}

export function after(...events: readonly Event[]): State {
  return events.reduce(reduce, initial);
}

export const toWaiting: readonly Event[] = [
  { t: 'go' },
  { t: 'joined', room: 'Room 3', clinic: 'North Clinic', demo: false },
  { t: 'asking' },
  { t: 'device', kind: 'camera', on: true },
  { t: 'device', kind: 'microphone', on: true },
  { t: 'asked' },
  { t: 'device', kind: 'camera', on: false },
  { t: 'device', kind: 'microphone', on: false },
  { t: 'passed' },
];

export const toCall: readonly Event[] = [
  ...toWaiting,
  { t: 'admitted' },
  { t: 'agreed', agreed: agreedOn(room, me) },
  { t: 'device', kind: 'camera', on: true },
  { t: 'device', kind: 'microphone', on: true },
  { t: 'sending', allowed: true },
];
