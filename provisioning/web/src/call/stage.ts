// The call: the room's picture fills the page, a strip above says what is true, a bar below holds the controls, and a
// panel says who is here and shows what people compare.

import { pictures } from '../pictures/pictures.ts';
import { button, draw, el, say, show } from '../ui/dom.ts';
import { icon, type IconName } from '../ui/icons.ts';
import { t } from '../messages/messages.ts';
import type { DeviceKind } from '../media/devices.ts';
import { ownVideo, showTrack, type Actions, type OwnMedia, type Screen } from './screens.ts';
import { confirmationOf, mainPerson, others, type Person, type State } from './state.ts';
import {
  companyWords,
  confirmationWords,
  coverWords,
  deviceWords,
  measuredWords,
  receiptWords,
  weakestWords,
} from './words.ts';

/** The elements that a member's tracks are attached to. */
export interface Tile {
  readonly video: HTMLVideoElement;
  readonly audio: HTMLAudioElement;
}

export interface Stage extends Screen {
  /** Undefined for whoever is not in the accepted transcript. */
  tile(identity: string): Tile | undefined;
}

function iconFor(kind: DeviceKind, on: boolean): IconName {
  if (kind === 'camera') return on ? 'camera' : 'cameraOff';
  return on ? 'microphone' : 'microphoneOff';
}

/** Words with an icon, both replaced together. */
function deviceState(kind: DeviceKind): { root: HTMLElement; update(state: State): void } {
  const words = el('span', {});
  const root = el('p', { class: 'device' }, words);
  let shown: boolean | undefined;
  return {
    root,
    update(state) {
      const { on } = state.devices[kind];
      if (on !== shown) {
        root.replaceChildren(icon(iconFor(kind, on)), words);
        root.classList.toggle('on', on);
        shown = on;
      }
      say(words, deviceWords(state, kind));
    },
  };
}

function strip(): { root: HTMLElement; update(state: State): void } {
  const company = el('p', { class: 'company' });
  const sure = el('p', { class: 'sure' });
  const camera = deviceState('camera');
  const microphone = deviceState('microphone');
  const root = el(
    'header',
    { class: 'strip' },
    el('div', { class: 'strip-people' }, company, sure),
    el('div', { class: 'strip-devices' }, camera.root, microphone.root),
  );
  return {
    root,
    update(state) {
      say(company, companyWords(state));
      say(sure, weakestWords(state));
      camera.update(state);
      microphone.update(state);
    },
  };
}

function toggle(kind: DeviceKind, actions: Actions): { root: HTMLButtonElement; update(state: State): void } {
  let on = true;
  const labels = {
    camera: ['call.camera_turn_on', 'call.camera_turn_off'],
    microphone: ['call.unmute', 'call.mute'],
  } as const;
  const root = button('', () => actions.want(kind, !on), { class: 'bar-button' });
  let drawn: boolean | undefined;
  return {
    root,
    update(state) {
      on = state.devices[kind].on;
      if (drawn === on) return;
      drawn = on;
      const word = root.querySelector('.word')!;
      say(word, t(labels[kind][on ? 1 : 0]));
      root.replaceChildren(icon(iconFor(kind, on)), word);
      root.classList.toggle('is-off', !on);
    },
  };
}

function bar(actions: Actions): { root: HTMLElement; update(state: State): void } {
  const microphone = toggle('microphone', actions);
  const camera = toggle('camera', actions);
  const people = button(t('call.people'), () => actions.panel(), { icon: icon('people'), class: 'bar-button' });
  people.setAttribute('aria-controls', 'panel');
  const leave = button(t('call.leave'), () => actions.leave(), { icon: icon('leave'), class: 'bar-button leave' });
  const root = el('div', { class: 'bar', role: 'toolbar', 'aria-label': t('call.controls') });
  root.append(microphone.root, camera.root, people, leave);
  roving(root);
  return {
    root,
    update(state) {
      microphone.update(state);
      camera.update(state);
      people.setAttribute('aria-expanded', String(state.panel));
    },
  };
}

/** Arrow keys move inside the toolbar; Tab enters and leaves it (ARIA Authoring Practices, "Toolbar"). */
function roving(toolbar: HTMLElement): void {
  const buttons = () => [...toolbar.querySelectorAll('button')];
  const choose = (chosen: HTMLButtonElement) => {
    for (const b of buttons()) b.tabIndex = b === chosen ? 0 : -1;
  };
  choose(buttons()[0]!);
  toolbar.addEventListener('focusin', (event) => choose((event.target as Element).closest('button')!));
  toolbar.addEventListener('keydown', (event) => {
    const list = buttons();
    const at = list.indexOf(document.activeElement as HTMLButtonElement);
    const forward = document.documentElement.dir === 'rtl' ? 'ArrowLeft' : 'ArrowRight';
    const back = forward === 'ArrowRight' ? 'ArrowLeft' : 'ArrowRight';
    const to = { [forward]: at + 1, [back]: at - 1, Home: 0, End: list.length - 1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    list.at(to % list.length)!.focus();
  });
}

function personRow(state: State, p: Person): HTMLElement {
  const name = el('bdi', {}, p.name);
  const title = el('p', { class: 'person-name' }, name);
  const role = el('p', { class: 'muted' }, p.self ? t('people.you', { name: t(`people.role_${p.role}`) }) : t(`people.role_${p.role}`));
  const sure = el('p', { class: `person-sure ${confirmationOf(p)}` }, confirmationWords(p));
  const receipts = p.self || state.line !== 'good' ? [] : receiptWords(state, p).map((w) => el('p', { class: 'muted' }, w));
  return el('li', { class: 'person' }, title, role, sure, ...receipts);
}

function pictureRow(state: State): HTMLElement {
  const tiles = (state.agreed?.pictures ?? []).map((index) => {
    const picture = pictures[index]!;
    return el('li', { class: 'picture' }, draw(picture.drawing, 'picture-drawing'), el('span', {}, t(picture.message)));
  });
  return el('ol', { class: 'pictures' }, ...tiles);
}

function panel(actions: Actions): { root: HTMLElement; update(state: State): void } {
  const title = el('h2', { id: 'panel-title', tabindex: '-1' }, t('people.title'));
  const close = button(t('call.people_hide'), () => actions.panel(), { icon: icon('close'), class: 'panel-close' });
  const count = el('p', { class: 'muted' });
  const list = el('ul', { class: 'people' });
  const checkTitle = el('h2', {}, t('pictures.title'));
  const checkBody = el('p', { class: 'muted' });
  const holder = el('div', {});
  const code = el('span', { class: 'code', dir: 'ltr' });
  const digits = el('span', { class: 'code', dir: 'ltr' });
  const measured = el('p', { class: 'measured muted' });
  const details = el(
    'details',
    {},
    el('summary', {}, t('pictures.details')),
    el('dl', {}, el('dt', {}, t('pictures.code')), el('dd', {}, code), el('dt', {}, t('pictures.digits')), el('dd', {}, digits)),
    measured,
    el('p', { class: 'muted' }, t('pictures.limit')),
  );
  const root = el('aside', { class: 'panel', id: 'panel', 'aria-labelledby': 'panel-title' });
  root.append(el('div', { class: 'panel-head' }, title, close), count, list, checkTitle, checkBody, holder, details);
  let drawn = '';
  return {
    root,
    update(state) {
      const opened = root.hidden && state.panel;
      show(root, state.panel);
      const people = [...others(state), ...(state.agreed?.people ?? []).filter((p) => p.self)];
      say(count, t('people.number', { count: people.length }));
      const key = JSON.stringify([people.map((p) => [p, receiptWords(state, p)]), state.line, state.agreed?.pictures]);
      if (key !== drawn) {
        drawn = key;
        list.replaceChildren(...people.map((p) => personRow(state, p)));
        holder.replaceChildren(pictureRow(state));
        say(code, state.agreed?.code ?? '');
        say(digits, state.agreed?.digits ?? '');
      }
      const main = mainPerson(state);
      say(checkBody, main ? t('pictures.body', { name: main.name }) : '');
      say(measured, main ? measuredWords(state, main) : '');
      if (opened) title.focus();
    },
  };
}

function remoteTile(p: Person): Tile & { readonly root: HTMLElement } {
  const video = el('video', { class: 'blank', playsinline: true, autoplay: true, 'aria-label': t('call.region', { room: p.name }) });
  const audio = el('audio', { autoplay: true });
  const root = el('div', { class: 'tile', 'data-identity': p.identity }, video, audio, el('bdi', { class: 'tile-name' }, p.name));
  return { root, video, audio };
}

export function stage(actions: Actions, media: OwnMedia): Stage {
  const top = strip();
  const controls = bar(actions);
  const side = panel(actions);
  const main = el('div', { class: 'tiles' });
  const own = ownVideo();
  own.setAttribute('aria-label', t('call.own_picture'));
  own.classList.add('self');
  const coverTitle = el('p', { class: 'large' });
  const coverMore = el('p', {});
  const cover = el('div', { class: 'cover' }, coverTitle, coverMore);
  const trouble = el('p', { class: 'banner notice', role: 'status' });
  const sound = button(t('call.sound'), () => actions.sound(), { kind: 'primary', icon: icon('sound'), class: 'sound' });
  const title = el('h1', { class: 'visually-hidden', tabindex: '-1' }, t('page.title'));
  const middle = el('div', { class: 'stage-middle' }, main, cover, own, sound, trouble);
  const root = el('div', { class: 'stage' }, title, top.root, middle, side.root, controls.root);
  const tiles = new Map<string, ReturnType<typeof remoteTile>>();

  function arrange(state: State): void {
    const people = others(state);
    const present = new Set(people.map((p) => p.identity));
    for (const [identity, tile] of tiles) {
      if (present.has(identity)) continue;
      tile.root.remove();
      tiles.delete(identity);
    }
    for (const p of people) {
      if (tiles.has(p.identity)) continue;
      const tile = remoteTile(p);
      tiles.set(p.identity, tile);
      main.append(tile.root);
    }
    const first = mainPerson(state);
    for (const [identity, tile] of tiles) {
      tile.root.classList.toggle('main', identity === first?.identity);
      const remote = state.remotes[identity];
      // Kept in the layout: a browser tells nothing of the pictures of a video that is not.
      tile.video.classList.toggle('blank', !(state.line === 'good' && remote?.picture === true && !remote.pictureMuted));
    }
    root.dataset['people'] = String(people.length);
  }

  return {
    root,
    tile: (identity) => tiles.get(identity),
    close: () => tiles.clear(),
    update(state) {
      arrange(state);
      top.update(state);
      controls.update(state);
      side.update(state);
      root.classList.toggle('with-panel', state.panel);
      showTrack(own, media.track('camera'));
      const words = coverWords(state);
      show(cover, words.length > 0);
      say(coverTitle, words[0] ?? '');
      say(coverMore, words[1] ?? '');
      show(sound, state.soundBlocked);
      const broken = (['camera', 'microphone'] as const).find((kind) => state.devices[kind].trouble);
      show(trouble, broken !== undefined);
      say(trouble, broken ? t(`call.device_${broken}`) : '');
    },
  };
}
