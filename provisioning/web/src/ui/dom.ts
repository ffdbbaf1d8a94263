// Making parts of a page. Text is always text: there is no way from a string to markup here, and the page's policy
// (Trusted Types) would refuse one.

export interface Drawing {
  readonly root: readonly (readonly [string, string])[];
  readonly shapes: readonly (readonly [string, readonly (readonly [string, string])[]])[];
}

type Child = Node | string | undefined | false;
type Attributes = Readonly<Record<string, string | boolean | undefined>>;

function set(element: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? '' : value);
  }
}

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  set(element, attributes);
  for (const child of children) if (child) element.append(child);
  return element;
}

const svgSpace = 'http://www.w3.org/2000/svg';

/** A drawing made at build time; it says nothing to a screen reader, words stand beside it. */
export function draw(drawing: Drawing, className: string): SVGSVGElement {
  const svg = document.createElementNS(svgSpace, 'svg');
  for (const [name, value] of drawing.root) svg.setAttribute(name, value);
  set(svg, { class: className, 'aria-hidden': 'true', focusable: 'false' });
  for (const [tag, attributes] of drawing.shapes) {
    const shape = document.createElementNS(svgSpace, tag);
    for (const [name, value] of attributes) shape.setAttribute(name, value);
    svg.append(shape);
  }
  return svg;
}

/** A button that acts on release inside it, by pointer or key, once within 400 ms. */
export function button(
  label: Child,
  act: () => void,
  options: { readonly kind?: 'primary' | 'plain' | 'stop'; readonly icon?: Node; readonly class?: string } = {},
): HTMLButtonElement {
  const { kind = 'plain', icon } = options;
  const word = el('span', { class: 'word' }, label);
  const b = el('button', { type: 'button', class: `button ${kind} ${options.class ?? ''}`.trim() }, icon, word);
  let last = -Infinity;
  b.addEventListener('click', (event) => {
    if (event.timeStamp - last < 400) return;
    last = event.timeStamp;
    act();
  });
  return b;
}

/** Changes a text only when it differs, so that a live region is not read again. */
export function say(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

export function show(element: HTMLElement, shown: boolean): void {
  if (element.hidden === shown) element.hidden = !shown;
}
