// Which words belong to which state. Everything a person reads or hears about the call is chosen here, from the state
// alone, so that it can be tested without a page.

import { t, type MessageId, type Places } from '../messages/messages.ts';
import type { DeviceKind } from '../media/devices.ts';
import { confirmationOf, mainPerson, others, type Notice, type Person, type State } from './state.ts';

export interface Text {
  readonly id: MessageId;
  readonly places?: Places;
}

export function text({ id, places }: Text): string {
  return t(id, places);
}

export interface NoticeWords {
  readonly title: string;
  readonly body: readonly string[];
  /** Short code for staff and IT; never explained to the person. */
  readonly code?: string;
  readonly again?: string;
  readonly leave?: string;
}

function joinWords(why: Extract<Notice, { kind: 'join' }>['why']): NoticeWords {
  const codes = { unknown: 'INV-02', used: 'INV-04', over: 'INV-01', early: 'INV-03' } as const;
  const words = { title: t(`link.${why}_title`), body: [t(`link.${why}`)] };
  if (why === 'unknown' || why === 'used' || why === 'over') return { ...words, code: codes[why] };
  const again = { ...words, again: t('link.again') };
  if (why === 'early') return { ...again, code: codes.early };
  return why === 'unreachable' ? { ...again, code: 'HUB-01' } : { ...again, code: 'GEN-00' };
}

function stoppedWords(n: Extract<Notice, { kind: 'stopped' }>): NoticeWords {
  const reason = n.different ? t('stopped.different') : t('stopped.private');
  const code = n.different ? 'SAS-01' : 'KEY-04';
  const body = [reason, t('stopped.now')];
  if (!n.again) return { title: t('stopped.title'), body: [...body, t('stopped.second')], code, leave: t('stopped.leave') };
  return { title: t('stopped.title'), body, code, again: t('stopped.again'), leave: t('stopped.leave') };
}

export function noticeWords(state: State): NoticeWords {
  const n = state.notice!;
  const { room } = state;
  switch (n.kind) {
    case 'browser':
      return { title: t('browser.title'), body: [t('browser.body')], code: 'BRW-01' };
    case 'media':
      return { title: t('browser.title'), body: [t('browser.media_body')], code: 'BRW-03' };
    case 'bad':
      return { title: t('link.bad_title'), body: [t('link.bad')], code: 'INV-02' };
    case 'trust':
      return { title: t('link.trust_title'), body: [t('link.trust')], code: 'ROS-01' };
    case 'join':
      return joinWords(n.why);
    case 'stopped':
      return stoppedWords(n);
    case 'left':
      return {
        title: t('over.left_title'),
        body: [t('over.left')],
        again: t('over.back'),
        leave: t('over.finish'),
      };
    case 'finished':
      return { title: t('over.ended_title'), body: [t('over.finished')] };
    case 'ended':
      return { title: t('over.ended_title'), body: [t('over.ended'), t('over.finished')] };
    case 'removed':
      return { title: t('over.removed_title'), body: [t('over.removed', { room })], code: 'LOB-03' };
    case 'refused':
      return { title: t('over.refused_title', { room }), body: [t('over.refused')], code: 'LOB-02' };
    case 'elsewhere':
      return { title: t('over.elsewhere_title'), body: [t('over.elsewhere')], again: t('over.elsewhere_use') };
  }
}

/** What stands under the title while waiting. */
export function waitingWords(state: State): readonly string[] {
  const { room } = state;
  const place = { sending: 'waiting.sending', open: 'waiting.open', closed: 'waiting.closed' } as const;
  const here = state.returned && state.lobby !== 'closed' ? 'waiting.returned' : place[state.lobby];
  const first = state.relay ? t(here, { room }) : t('waiting.line');
  const { camera, microphone } = state.devices;
  if (camera.wanted && microphone.wanted) return [first, t('waiting.devices', { room })];
  if (microphone.wanted) return [first, t('waiting.camera_off', { room })];
  return [first, t('waiting.listen')];
}

/** Who is in the call, and how sure that is: the strip shows the weakest. */
export function companyWords(state: State): string {
  const people = others(state);
  const [first] = people;
  if (!first) return '';
  if (people.length > 1) return t('call.people_count', { count: people.length + 1 });
  return t('call.only_you_two', { name: first.name });
}

const shortConfirmation = {
  confirmed: 'call.confirmed',
  checked: 'call.checked',
  checked_by: 'call.checked_by',
  signed_in: 'call.not_checked',
  server_only: 'call.not_checked',
} as const;

const order = ['server_only', 'signed_in', 'checked_by', 'checked', 'confirmed'] as const;

export function weakestWords(state: State): string {
  const people = [...others(state)];
  people.sort((a, b) => order.indexOf(confirmationOf(a)) - order.indexOf(confirmationOf(b)));
  const weakest = people[0];
  return weakest ? t(shortConfirmation[confirmationOf(weakest)], { name: weakest.comparedBy }) : '';
}

export function confirmationWords(p: Person): string {
  const c = confirmationOf(p);
  if (p.self && c === 'server_only') return t('people.server_only_you');
  return t(`people.${c}`, { name: p.comparedBy });
}

/** The device's state as it is, and who gets something of it. */
export function deviceWords(state: State, kind: DeviceKind): string {
  if (!state.devices[kind].on) return t(`call.${kind}_off`);
  const people = others(state);
  if (!state.sending || state.line !== 'good' || !people[0]) return t(`call.${kind}_on_nobody`);
  if (people.length > 1) return t(`call.${kind}_on_others`);
  return t(`call.${kind}_on`, { name: people[0].name });
}

/** What lies over the picture while there is none: heading and more. */
export function coverWords(state: State): readonly string[] {
  const person = mainPerson(state);
  if (!person) return [];
  const { name } = person;
  switch (state.line) {
    case 'short':
      return [t('line.short')];
    case 'lost':
      return [t('line.lost'), t('line.lost_more', { name })];
    case 'long':
      return [t('line.long'), t('line.lost_more', { name })];
    case 'good': {
      const remote = state.remotes[person.identity];
      if (remote?.pictureMuted) return [t('call.no_camera_yet', { name })];
      return remote?.picture ? [] : [t('call.no_picture_yet', { name })];
    }
  }
}

/** Whether our picture and sound arrive at a member, from that member's own report. */
export function receiptWords(state: State, p: Person): readonly string[] {
  const report = state.remotes[p.identity]?.report;
  if (!report) return [];
  const { name } = p;
  const words: string[] = [];
  if (state.devices.camera.on) {
    words.push(t(report.video.frames > 0 ? 'people.receives_picture' : 'people.receives_no_picture', { name }));
  }
  if (state.devices.microphone.on) {
    words.push(t(report.audio.packets > 0 ? 'people.receives_sound' : 'people.receives_no_sound', { name }));
  }
  return words;
}

/** The figures behind receiptWords, for Details. */
export function measuredWords(state: State, p: Person): string {
  const report = state.remotes[p.identity]?.report;
  if (!report) return '';
  return t('pictures.measured', {
    name: p.name,
    frames: report.video.frames,
    packets: report.audio.packets,
    level: Math.round(report.audio.level),
  });
}

export interface Announcement {
  readonly text: string;
  readonly assertive: boolean;
}

/** What a screen reader is told when a state follows another; once each, and nothing about levels or quality. */
export function announcements(before: State, now: State): readonly Announcement[] {
  const out: Announcement[] = [];
  const polite = (words: string) => out.push({ text: words, assertive: false });
  if (now.screen === 'waiting' && before.screen === 'waiting') {
    const words = waitingWords(now)[0]!;
    if (words !== waitingWords(before)[0]) polite(words);
  }
  if (now.screen !== 'call' || before.screen !== 'call') return out;
  if (companyWords(now) !== companyWords(before)) polite(companyWords(now));
  if (now.line !== before.line) {
    if (now.line === 'lost' || now.line === 'long') {
      out.push({ text: coverWords(now).join(' '), assertive: now.line === 'lost' });
    } else if (now.line === 'good' && before.line !== 'short') polite(t('line.back'));
  }
  for (const kind of ['camera', 'microphone'] as const) {
    if (now.devices[kind].on !== before.devices[kind].on) polite(deviceWords(now, kind));
  }
  return out;
}
