// The page's frame: draws whatever state it is given. It keeps no truth of its own.

import { el, show } from '../ui/dom.ts';
import { t } from '../messages/messages.ts';
import * as screens from './screens.ts';
import type { Actions, OwnMedia, Screen } from './screens.ts';
import { stage, type Stage, type Tile } from './stage.ts';
import type { State } from './state.ts';
import { announcements } from './words.ts';

export class View {
  readonly #actions: Actions;
  readonly #media: OwnMedia;
  readonly #main: HTMLElement;
  readonly #demo: HTMLElement;
  readonly #polite: HTMLElement;
  readonly #assertive: HTMLElement;
  #screen: Screen | undefined;
  #stage: Stage | undefined;
  #drawn: State | undefined;
  #key = '';

  constructor(root: HTMLElement, actions: Actions, media: OwnMedia) {
    this.#actions = actions;
    this.#media = media;
    this.#demo = el('p', { class: 'banner demo' }, t('page.demo'));
    this.#main = el('main', { 'aria-label': t('page.main') });
    this.#polite = el('div', { class: 'visually-hidden', 'aria-live': 'polite' });
    this.#assertive = el('div', { class: 'visually-hidden', 'aria-live': 'assertive' });
    root.replaceChildren(this.#demo, this.#main, this.#polite, this.#assertive);
    document.title = t('page.title');
  }

  /** Where a member's tracks are shown, while the call is on the page. */
  tile(identity: string): Tile | undefined {
    return this.#stage?.tile(identity);
  }

  draw(state: State): void {
    const before = this.#drawn;
    this.#drawn = state;
    show(this.#demo, state.demo);
    document.documentElement.dataset['screen'] = state.screen;
    const key = `${state.screen} ${JSON.stringify(state.notice ?? '')}`;
    if (key !== this.#key) {
      this.#key = key;
      this.#replace(state, before !== undefined);
    }
    this.#screen?.update(state);
    if (before) this.#announce(before, state);
  }

  #replace(state: State, focus: boolean): void {
    this.#screen?.close?.();
    this.#stage = undefined;
    this.#screen = this.#make(state);
    this.#main.replaceChildren(this.#screen.root);
    // Nothing is focused before the person has done something: the first screen is read from its top.
    if (focus) this.#main.querySelector('h1')?.focus();
  }

  #make(state: State): Screen {
    switch (state.screen) {
      case 'welcome':
        return screens.welcome(this.#actions);
      case 'joining':
        return screens.joining();
      case 'ask':
        return screens.ask(this.#actions, state);
      case 'check':
        return screens.check(this.#actions, this.#media);
      case 'waiting':
        return screens.waiting(this.#actions);
      case 'securing':
        return screens.securing(this.#actions, state);
      case 'notice':
        return screens.notice(this.#actions, state);
      case 'call':
        return (this.#stage = stage(this.#actions, this.#media));
    }
  }

  #announce(before: State, state: State): void {
    for (const { text, assertive } of announcements(before, state)) {
      const region = assertive ? this.#assertive : this.#polite;
      // A new element each time: the same words twice are two announcements.
      region.replaceChildren(el('p', {}, text));
    }
  }
}
