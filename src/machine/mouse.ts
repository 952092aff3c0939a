/** A machine's mouse or tablet as a program moves it. */
import { type InputEvent, POINTER_MAX, type PointerButton } from './interfaces.ts';

export class Mouse {
  private readonly send: (events: readonly InputEvent[]) => Promise<boolean>;

  constructor(send: (events: readonly InputEvent[]) => Promise<boolean>) {
    this.send = send;
  }

  /**
   * Moves to a place on the screen, which a tablet can.
   * @param x from 0, left, to 1, right  @param y from 0, at the top, to 1, at the bottom
   * @returns whether there is a tablet whose guest listens
   */
  moveTo(x: number, y: number): Promise<boolean> {
    const place = (part: number): number => Math.round(Math.max(0, Math.min(part, 1)) * POINTER_MAX);
    return this.send([
      { type: 'abs', data: { axis: 'x', value: place(x) } },
      { type: 'abs', data: { axis: 'y', value: place(y) } },
    ]);
  }

  /**
   * Moves on from where it is, which a mouse can.
   * @param dx to the right  @param dy down, in steps of the mouse
   * @returns whether there is a mouse whose guest listens
   */
  moveBy(dx: number, dy: number): Promise<boolean> {
    return this.send([
      { type: 'rel', data: { axis: 'x', value: dx } },
      { type: 'rel', data: { axis: 'y', value: dy } },
    ]);
  }

  press(button: PointerButton = 'left'): Promise<boolean> {
    return this.send([{ type: 'btn', data: { down: true, button } }]);
  }

  release(button: PointerButton = 'left'): Promise<boolean> {
    return this.send([{ type: 'btn', data: { down: false, button } }]);
  }

  /** Presses a button and lets it go. */
  async click(button: PointerButton = 'left'): Promise<boolean> {
    const pressed = await this.press(button);
    return (await this.release(button)) && pressed;
  }

  /** Turns the wheel. @param steps towards the user, negative ones away */
  async scroll(steps: number): Promise<boolean> {
    let taken = true;
    for (let i = 0; i < Math.abs(steps); i++) taken = (await this.click(steps > 0 ? 'wheel-down' : 'wheel-up')) && taken;
    return taken;
  }
}
