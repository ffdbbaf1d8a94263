// The files beside the page, by their hash. Script and style are bound by index.html (Subresource Integrity); the font
// and the worker are bound here. The build puts the names in.

export interface Asset {
  readonly file: string;
  readonly integrity: string;
}

declare const __ASSETS__: { readonly worker: Asset; readonly font: Asset };

/** The two scripts' addresses are the only strings that may become code on this page. */
interface UrlPolicy {
  createScriptURL(url: string): string;
}
interface PolicyFactory {
  createPolicy(name: string, rules: UrlPolicy): UrlPolicy;
}

/** Name in the Content-Security-Policy's trusted-types (web.go). */
const policyName = 'alcove';

const workerUrl = () => new URL(__ASSETS__.worker.file, document.baseURI).href;

let policy: UrlPolicy | undefined;

/** The address of the worker as a type that `new Worker` takes under Trusted Types. */
export function trustedWorkerUrl(): string {
  const rules: UrlPolicy = {
    createScriptURL(url) {
      if (url !== workerUrl()) throw new TypeError('not a script of this page');
      return url;
    },
  };
  const factory = (globalThis as { trustedTypes?: PolicyFactory }).trustedTypes;
  policy ??= factory ? factory.createPolicy(policyName, rules) : rules;
  return policy.createScriptURL(workerUrl());
}

async function checked({ file, integrity }: Asset): Promise<ArrayBuffer> {
  const response = await fetch(new URL(file, document.baseURI), { integrity, credentials: 'omit', cache: 'force-cache' });
  if (!response.ok) throw new Error(`${file}: ${response.status}`);
  return response.arrayBuffer();
}

/** Fetches the worker's file with its hash checked, so that a wrong one is found before a call begins. */
export async function checkWorker(): Promise<void> {
  await checked(__ASSETS__.worker);
}

/** Loads the page's typeface; without it the page is as usable, only less well set. */
export async function loadFont(): Promise<void> {
  const face = new FontFace('Inter', await checked(__ASSETS__.font), { weight: '100 900' });
  document.fonts.add(await face.load());
}
