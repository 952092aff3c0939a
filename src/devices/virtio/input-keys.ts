/** Scancodes of a PC's keyboard (set 1) as key codes of Linux's: those without a prefix are the same. */
import { EV, type InputEvent } from './input.ts';

const PREFIX = 0xe0;
const RELEASED = 0x80;
const LAST_SAME = 0x58;

/** After E0h. */
const EXTENDED: Readonly<Record<number, number>> = {
  28: 96, // keypad enter
  29: 97, // right control
  53: 98, // keypad slash
  55: 99, // print screen
  56: 100, // right alt
  71: 102, // home
  72: 103, // up
  73: 104, // page up
  75: 105, // left
  77: 106, // right
  79: 107, // end
  80: 108, // down
  81: 109, // page down
  82: 110, // insert
  83: 111, // delete
  32: 113, // mute
  46: 114, // volume down
  48: 115, // volume up
  94: 116, // power
  91: 125, // left meta
  92: 126, // right meta
  93: 127, // menu
};

/** @param codes of whole changes of keys  @returns an event for each that is known */
export function keyEvents(codes: readonly number[]): InputEvent[] {
  const events: InputEvent[] = [];
  for (let i = 0; i < codes.length; i++) {
    const extended = codes[i] === PREFIX;
    if (extended) i++;
    const scancode = (codes[i] ?? 0) & ~RELEASED;
    const code = extended ? EXTENDED[scancode] : scancode <= LAST_SAME ? scancode : undefined;
    if (code === undefined || code === 0) continue;
    events.push({ type: EV.key, code, value: (codes[i]! & RELEASED) === 0 ? 1 : 0 });
  }
  return events;
}
