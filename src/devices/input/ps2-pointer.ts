/** The PS/2 mouse as a receiver of events. */
import type { InputEvent, InputPointer, PointerButton } from '../../machine/interfaces.ts';
import type { I8042 } from './i8042.ts';

const BUTTONS: Partial<Record<PointerButton, number>> = { left: 1, right: 2, middle: 4 };
const WHEEL: Partial<Record<PointerButton, number>> = { 'wheel-up': -1, 'wheel-down': 1 };

export class Ps2Pointer implements InputPointer {
  readonly absolute = false;
  readonly relative = true;
  readonly listens = true;
  private readonly controller: I8042;
  private buttons = 0;

  constructor(controller: I8042) {
    this.controller = controller;
  }

  take(events: readonly InputEvent[]): void {
    const moved = { x: 0, y: 0, wheel: 0 };
    for (const event of events) {
      if (event.type === 'rel') moved[event.data.axis] += event.data.value;
      if (event.type !== 'btn') continue;
      const { down, button } = event.data;
      const bit = BUTTONS[button] ?? 0;
      this.buttons = down ? this.buttons | bit : this.buttons & ~bit;
      if (down) moved.wheel += WHEEL[button] ?? 0;
    }
    // The mouse counts upwards.
    this.controller.injectMouse(moved.x, -moved.y, this.buttons, moved.wheel);
  }
}
