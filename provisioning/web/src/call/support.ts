// Whether this browser can keep a session private. There is no way around a no.

/** True when the browser makes and uses an Ed25519 key that cannot be exported. */
async function signs(): Promise<boolean> {
  try {
    const pair = (await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify'])) as CryptoKeyPair;
    const signature = await crypto.subtle.sign('Ed25519', pair.privateKey, new Uint8Array(1));
    return signature.byteLength === 64;
  } catch {
    return false;
  }
}

/** True when frames can be encrypted between the encoder and the network. */
function transformsFrames(scope: typeof globalThis): boolean {
  const sender = (scope.RTCRtpSender as { prototype?: object } | undefined)?.prototype;
  return 'RTCRtpScriptTransform' in scope || (sender !== undefined && 'createEncodedStreams' in sender);
}

/** What is missing: `browser` for encryption, `media` for camera and microphone (an in-app browser), or nothing. */
export async function missingSupport(scope: typeof globalThis = globalThis): Promise<'browser' | 'media' | undefined> {
  const page = scope as unknown as Record<string, unknown>;
  if (!scope.isSecureContext || !scope.crypto?.subtle) return 'browser';
  if (!('RTCPeerConnection' in page) || !('Worker' in page) || !transformsFrames(scope)) return 'browser';
  if (!(await signs())) return 'browser';
  if (!scope.navigator?.mediaDevices?.getUserMedia) return 'media';
  return undefined;
}
