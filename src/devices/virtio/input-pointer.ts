/** What a pointer does as events of Linux's. */
import { type InputEvent as PointerEvent, type InputPointer, POINTER_MAX, type PointerButton } from '../../machine/interfaces.ts';
import { ABS, BTN, EV, type InputEvent, REL, type VirtioInput } from './input.ts';

/** Largest coordinate of a tablet. */
export const TABLET_MAX = POINTER_MAX;
const BUTTON: Partial<Record<PointerButton, number>> = {
  left: BTN.left,
  right: BTN.right,
  middle: BTN.middle,
  side: BTN.side,
  extra: BTN.extra,
};
const WHEEL: Partial<Record<PointerButton, number>> = { 'wheel-up': 1, 'wheel-down': -1 };

export class VirtioPointer implements InputPointer {
  readonly absolute: boolean;
  readonly relative: boolean;
  private readonly device: VirtioInput;

  /** @param absolute a tablet rather than a mouse */
  constructor(device: VirtioInput, absolute: boolean) {
    this.device = device;
    this.absolute = absolute;
    this.relative = !absolute;
  }

  get listens(): boolean {
    return this.device.listens;
  }

  take(events: readonly PointerEvent[]): void {
    this.device.send(events.flatMap(translate));
  }
}

function translate(event: PointerEvent): InputEvent[] {
  if (event.type === 'abs') {
    const value = Math.max(0, Math.min(event.data.value, TABLET_MAX));
    return [{ type: EV.absolute, code: ABS[event.data.axis], value }];
  }
  if (event.type === 'rel') return [{ type: EV.relative, code: REL[event.data.axis], value: event.data.value }];
  const { button, down } = event.data;
  const code = BUTTON[button];
  if (code !== undefined) return [{ type: EV.key, code, value: down ? 1 : 0 }];
  const turn = WHEEL[button];
  return turn === undefined || !down ? [] : [{ type: EV.relative, code: REL.wheel, value: turn }];
}
