// The page's own camera and microphone. Words about them are made from here, never from a button: a device is on while
// its track is live, and `off` stops the track, so that the browser's and the camera's own light go out.

export type DeviceKind = 'camera' | 'microphone';

/** Why a device did not open. `refused`: the person or the browser said no. */
export type DeviceTrouble = 'refused' | 'missing' | 'busy' | 'broken';

export class DeviceError extends Error {
  override name = 'DeviceError';
  readonly kind: DeviceKind;
  readonly trouble: DeviceTrouble;

  constructor(kind: DeviceKind, trouble: DeviceTrouble) {
    super(`${kind}: ${trouble}`);
    this.kind = kind;
    this.trouble = trouble;
  }
}

const constraints: Record<DeviceKind, MediaStreamConstraints> = {
  camera: {
    video: {
      width: { ideal: 640 },
      height: { ideal: 360 },
      frameRate: { ideal: 24, max: 30 },
      facingMode: 'user',
    },
  },
  microphone: {
    audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
  },
};

function troubleOf(error: unknown): DeviceTrouble {
  switch ((error as Error | undefined)?.name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return 'refused';
    case 'NotFoundError':
    case 'OverconstrainedError':
      return 'missing';
    case 'NotReadableError':
    case 'AbortError':
      return 'busy';
    default:
      return 'broken';
  }
}

export interface DeviceEvents {
  /** A device was opened, closed, or ended by itself (unplugged, taken by a phone call). */
  changed(kind: DeviceKind): void;
}

export class Devices {
  readonly #events: DeviceEvents;
  readonly #media: Pick<MediaDevices, 'getUserMedia'>;
  #tracks: Record<DeviceKind, MediaStreamTrack | undefined> = { camera: undefined, microphone: undefined };
  #opening: Record<DeviceKind, number> = { camera: 0, microphone: 0 };

  constructor(events: DeviceEvents, media: Pick<MediaDevices, 'getUserMedia'> = navigator.mediaDevices) {
    this.#events = events;
    this.#media = media;
  }

  /** The live track, or undefined while the device is closed. */
  track(kind: DeviceKind): MediaStreamTrack | undefined {
    const track = this.#tracks[kind];
    return track?.readyState === 'live' ? track : undefined;
  }

  /**
   * Opens the devices that are not open yet, with one question of the browser if it can. Returns what did not open.
   * A call to `close` meanwhile wins.
   */
  async open(kinds: readonly DeviceKind[]): Promise<readonly DeviceError[]> {
    const shut = kinds.filter((kind) => !this.track(kind));
    if (shut.length === 0) return [];
    const attempts = new Map(shut.map((kind) => [kind, ++this.#opening[kind]]));
    const troubles: DeviceError[] = [];
    const take = (kind: DeviceKind, track: MediaStreamTrack | undefined) => {
      if (!track) troubles.push(new DeviceError(kind, 'broken'));
      else if (attempts.get(kind) === this.#opening[kind]) this.#keep(kind, track);
      else track.stop();
    };
    if (shut.length > 1) {
      try {
        const stream = await this.#media.getUserMedia({ ...constraints.camera, ...constraints.microphone });
        take('camera', stream.getVideoTracks()[0]);
        take('microphone', stream.getAudioTracks()[0]);
        return troubles;
      } catch {
        // One missing device refuses both: ask for each by itself.
      }
    }
    for (const kind of shut) {
      try {
        take(kind, (await this.#media.getUserMedia(constraints[kind])).getTracks()[0]);
      } catch (error) {
        troubles.push(new DeviceError(kind, troubleOf(error)));
      }
    }
    return troubles;
  }

  #keep(kind: DeviceKind, track: MediaStreamTrack): void {
    track.addEventListener('ended', () => {
      if (this.#tracks[kind] === track) this.close(kind);
    });
    this.#tracks[kind] = track;
    this.#events.changed(kind);
  }

  close(kind: DeviceKind): void {
    this.#opening[kind]++;
    const track = this.#tracks[kind];
    this.#tracks[kind] = undefined;
    if (!track) return;
    track.stop();
    this.#events.changed(kind);
  }

  closeAll(): void {
    this.close('camera');
    this.close('microphone');
  }
}

/** Level of a microphone as a share of full scale, 0 to 1, for the bar of the device test. */
export class LevelMeter {
  readonly #context: AudioContext;
  readonly #analyser: AnalyserNode;
  readonly #source: MediaStreamAudioSourceNode;
  readonly #samples: Float32Array<ArrayBuffer>;

  constructor(track: MediaStreamTrack) {
    this.#context = new AudioContext();
    this.#analyser = this.#context.createAnalyser();
    this.#analyser.fftSize = 1024;
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#source = this.#context.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(this.#analyser);
  }

  /** RMS of the last 20 ms, on a scale where −60 dBFS is 0 and −10 dBFS is 1. */
  read(): number {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const x of this.#samples) sum += x * x;
    const db = 10 * Math.log10(sum / this.#samples.length + 1e-12);
    return Math.min(1, Math.max(0, (db + 60) / 50));
  }

  close(): void {
    this.#source.disconnect();
    void this.#context.close();
  }
}
