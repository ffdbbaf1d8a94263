// The screens before and after the call: one heading, at most two sentences, one main action.

import { button, el, say, show } from '../ui/dom.ts';
import { t, type MessageId } from '../messages/messages.ts';
import type { DeviceKind } from '../media/devices.ts';
import type { State } from './state.ts';
import { noticeWords, waitingWords } from './words.ts';

/** What a person can do; the session acts on it. */
export interface Actions {
  go(): void;
  ask(kinds: readonly DeviceKind[]): void;
  pass(): void;
  want(kind: DeviceKind, wanted: boolean): void;
  again(): void;
  leave(): void;
  finish(): void;
  panel(): void;
  sound(): void;
}

/** What of the person's own devices a screen may show. */
export interface OwnMedia {
  track(kind: DeviceKind): MediaStreamTrack | undefined;
  /** Level of the microphone from 0 to 1, undefined while it is closed. */
  level(): number | undefined;
}

export interface Screen {
  readonly root: HTMLElement;
  update(state: State): void;
  close?(): void;
}

function heading(words: string): HTMLHeadingElement {
  return el('h1', { tabindex: '-1' }, words);
}

function card(...children: readonly (Node | undefined)[]): HTMLElement {
  return el('section', { class: 'card' }, ...children);
}

function actionsRow(...buttons: readonly (HTMLElement | undefined)[]): HTMLElement {
  return el('div', { class: 'actions' }, ...buttons);
}

export function welcome(actions: Actions): Screen {
  const go = button(t('welcome.go'), () => actions.go(), { kind: 'primary' });
  const root = card(heading(t('welcome.title')), el('p', {}, t('welcome.body')), actionsRow(go));
  return { root, update: () => undefined };
}

export function joining(): Screen {
  const root = card(heading(t('joining.title')), el('p', { class: 'dots' }, t('joining.body')));
  return { root, update: () => undefined };
}

export function ask(actions: Actions, state: State): Screen {
  const both = button(t('ask.both'), () => actions.ask(['camera', 'microphone']), { kind: 'primary' });
  const one = button(t('ask.microphone'), () => actions.ask(['microphone']));
  const asking = el('p', { role: 'status', class: 'muted' });
  const row = actionsRow(both, one);
  const root = card(
    heading(t('ask.title', { clinic: state.clinic })),
    el('p', {}, t('ask.body')),
    asking,
    row,
  );
  return {
    root,
    update(now) {
      show(row, !now.asking);
      say(asking, now.asking ? t('ask.asking') : '');
    },
  };
}

/** Shows a track in a video element; the element keeps no picture of a track that has gone. */
export function showTrack(video: HTMLVideoElement, track: MediaStreamTrack | undefined): void {
  const shown = (video.srcObject as MediaStream | null)?.getTracks()[0];
  if (shown === track) return;
  video.srcObject = track ? new MediaStream([track]) : null;
  show(video, track !== undefined);
}

export function ownVideo(): HTMLVideoElement {
  const video = el('video', { class: 'mirrored', playsinline: true, autoplay: true, 'aria-label': t('check.own_picture') });
  // A property: as an attribute it is only the default, and this video must never be heard.
  video.muted = true;
  video.hidden = true;
  return video;
}

function levelBar(media: OwnMedia): { root: HTMLElement; close(): void } {
  const fill = el('div', { class: 'level-fill' });
  const words = el('span', { class: 'muted', role: 'status' }, t('check.level_none'));
  const bar = el('div', { class: 'level', 'aria-hidden': 'true' }, fill);
  const root = el('div', { class: 'level-row' }, el('span', {}, t('check.level')), bar, words);
  let heard = 0;
  const timer = setInterval(() => {
    const level = media.level();
    show(root, level !== undefined);
    fill.style.inlineSize = `${Math.round(100 * (level ?? 0))}%`;
    if ((level ?? 0) > 0.25) heard = Date.now();
    say(words, Date.now() - heard < 3000 ? t('check.level_good') : t('check.level_none'));
  }, 100);
  return { root, close: () => clearInterval(timer) };
}

function checkBody(camera: boolean, microphone: boolean): MessageId {
  if (microphone) return camera ? 'check.body' : 'check.body_talk';
  return camera ? 'check.body_watch' : 'check.body_listen';
}

export function check(actions: Actions, media: OwnMedia): Screen {
  const video = ownVideo();
  const level = levelBar(media);
  const troubles = el('ul', { class: 'troubles', role: 'status' });
  const body = el('p', {});
  const go = button('', () => actions.pass(), { kind: 'primary' });
  const again = button(t('check.again'), () => actions.ask(['camera', 'microphone']));
  const row = actionsRow(go, again);
  const title = heading(t('check.title'));
  const root = card(title, body, el('div', { class: 'preview' }, video), level.root, troubles, row);
  const kinds = ['camera', 'microphone'] as const;
  return {
    root,
    update(state) {
      showTrack(video, media.track('camera'));
      const { camera, microphone } = state.devices;
      say(title, t(camera.on ? 'check.title' : 'check.title_sound'));
      say(body, t(checkBody(camera.on, microphone.on)));
      const words = kinds.flatMap((kind) => {
        const { trouble } = state.devices[kind];
        return trouble ? [t(`check.${kind}_${trouble}`)] : [];
      });
      if (words.join() !== [...troubles.children].map((c) => c.textContent).join()) {
        troubles.replaceChildren(...words.map((w) => el('li', {}, w)));
      }
      const label = camera.on && microphone.on ? 'check.go' : microphone.on ? 'check.without_camera' : 'check.without_microphone';
      say(go.querySelector('.word')!, t(label));
      show(again, words.length > 0 || !camera.on);
    },
    close: () => level.close(),
  };
}

export function waiting(actions: Actions): Screen {
  const first = el('p', { class: 'large' });
  const second = el('p', {});
  const leave = button(t('waiting.leave'), () => actions.leave());
  const root = card(heading(t('waiting.title')), first, second, actionsRow(leave));
  return {
    root,
    update(state) {
      const words = waitingWords(state);
      say(first, words[0]!);
      say(second, words[1] ?? '');
    },
  };
}

export function securing(actions: Actions, state: State): Screen {
  const leave = button(t('waiting.leave'), () => actions.leave());
  const root = card(
    heading(t('securing.title', { room: state.room })),
    el('p', { class: 'dots' }, t('securing.body')),
    actionsRow(leave),
  );
  return { root, update: () => undefined };
}

export function notice(actions: Actions, state: State): Screen {
  const words = noticeWords(state);
  const again = words.again ? button(words.again, () => actions.again(), { kind: 'primary' }) : undefined;
  const leave = words.leave ? button(words.leave, () => actions.finish()) : undefined;
  const root = card(
    heading(words.title),
    ...words.body.map((w) => el('p', {}, w)),
    again || leave ? actionsRow(again, leave) : undefined,
    words.code ? el('p', { class: 'code-footer' }, t('code.label', { code: words.code })) : undefined,
  );
  return { root, update: () => undefined };
}
