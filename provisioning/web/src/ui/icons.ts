// Lucide's icons that the pages use. An icon never stands without its word.

import camera from 'lucide-static/icons/video.svg';
import cameraOff from 'lucide-static/icons/video-off.svg';
import close from 'lucide-static/icons/x.svg';
import leave from 'lucide-static/icons/log-out.svg';
import microphone from 'lucide-static/icons/mic.svg';
import microphoneOff from 'lucide-static/icons/mic-off.svg';
import notice from 'lucide-static/icons/circle-help.svg';
import people from 'lucide-static/icons/users.svg';
import sound from 'lucide-static/icons/volume-2.svg';
import { draw, type Drawing } from './dom.ts';

const drawings = { camera, cameraOff, close, leave, microphone, microphoneOff, notice, people, sound } satisfies Record<
  string,
  Drawing
>;

export type IconName = keyof typeof drawings;

export function icon(name: IconName): SVGSVGElement {
  return draw(drawings[name], `icon icon-${name}`);
}
