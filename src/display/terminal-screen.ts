/**
 * A PC's screen on a terminal of at least 16 colours that speaks UTF-8: what to write so that it shows what the
 * display shows. Only what has changed is written (ECMA-48 control sequences, as xterm has them).
 *
 * A screen smaller than the terminal stands in its middle; of a larger one, the part with the cursor is shown.
 */
import type { GraphicsScreen, TextScreen } from '../machine/interfaces.ts';
import { characterOf } from './text.ts';

/** ANSI's numbers of the colours that a VGA attribute names. */
const COLORS = [0, 4, 2, 6, 1, 5, 3, 7] as const;
const BRIGHT = 8;
const BLINKING = 0x80;
/** Light grey on black. */
const PLAIN = 7;
const BLANK = (PLAIN << 8) | 32;
/** Cells that are written again rather than passed over. */
const SHORT_GAP = 4;
const ESC = '\x1b';

/** Takes the terminal over: the other screen, emptied; what `restore` undoes. */
export const TAKE_OVER = `${ESC}[?1049h${ESC}[0m${ESC}[2J${ESC}[?25l`;
export const RESTORE = `${ESC}[0m${ESC}[?25h${ESC}[?1049l`;

/** Select graphic rendition for an attribute byte. */
function rendition(attribute: number): string {
  const front = attribute & 15;
  const codes = [0, (front & BRIGHT ? 90 : 30) + COLORS[front & 7]!, 40 + COLORS[(attribute >> 4) & 7]!];
  if (attribute & BLINKING) codes.push(5);
  return `${ESC}[${codes.join(';')}m`;
}

/** A message as a screen of its own. */
export function messageScreen(message: string): TextScreen {
  return {
    columns: message.length,
    rows: 1,
    cells: Uint16Array.from(message, (character) => (PLAIN << 8) | character.charCodeAt(0)),
    cursor: -1,
  };
}

/** What stands for pixels, which characters cannot show. */
export function graphicsMessage({ width, height }: GraphicsScreen): string {
  return width === 0 ? 'VGA Blank mode' : `${width} x ${height} Graphic mode`;
}

/** What of the screen is shown where, along one axis. */
function place(screen: number, terminal: number, cursor: number): { shown: number; from: number; at: number } {
  const shown = Math.min(screen, terminal);
  const from = Math.max(0, Math.min(screen - shown, cursor - shown + 1));
  return { shown, from, at: (terminal - shown) >> 1 };
}

export class TerminalScreen {
  private columns: number;
  private rows: number;
  /** What the terminal shows, as cells of a text screen, row by row. */
  private shown: Uint16Array;
  private cursor = '';

  /** @param columns, rows of the terminal, which has just been taken over */
  constructor(columns: number, rows: number) {
    this.columns = columns;
    this.rows = rows;
    this.shown = new Uint16Array(columns * rows).fill(BLANK);
  }

  /** The terminal has another size, or something else has written to it. @returns what empties it */
  redraw(columns = this.columns, rows = this.rows): string {
    this.columns = columns;
    this.rows = rows;
    this.shown = new Uint16Array(columns * rows).fill(BLANK);
    this.cursor = '';
    return `${ESC}[0m${ESC}[2J`;
  }

  /** @returns what to write for the terminal to show the screen; empty when it does already */
  show(screen: TextScreen): string {
    const { columns, cursor } = screen;
    const [cursorRow, cursorColumn] = cursor < 0 ? [-1, -1] : [Math.floor(cursor / columns), cursor % columns];
    const across = place(columns, this.columns, cursorColumn);
    const down = place(screen.rows, this.rows, cursorRow);
    const wanted = new Uint16Array(this.columns * this.rows).fill(BLANK);
    for (let row = 0; row < down.shown; row++) {
      const from = (down.from + row) * columns + across.from;
      wanted.set(screen.cells.subarray(from, from + across.shown), (down.at + row) * this.columns + across.at);
    }
    const changes = this.changesTo(wanted);
    const [y, x] = [cursorRow - down.from + down.at + 1, cursorColumn - across.from + across.at + 1];
    const placed = cursor < 0 ? `${ESC}[?25l` : `${ESC}[${y};${x}H${ESC}[?25h`;
    if (changes === '' && placed === this.cursor) return '';
    this.cursor = placed;
    return (changes === '' ? '' : `${ESC}[?25l${changes}${ESC}[0m`) + placed;
  }

  private changesTo(wanted: Uint16Array): string {
    let out = '';
    let [next, attribute] = [-1, -1];
    const put = (i: number): void => {
      const cell = wanted[i]!;
      if (cell >> 8 !== attribute) {
        attribute = cell >> 8;
        out += rendition(attribute);
      }
      out += characterOf(cell & 0xff);
      next = i + 1;
    };
    wanted.forEach((cell, i) => {
      if (cell === this.shown[i]) return;
      const column = i % this.columns;
      // At the right edge terminals differ in where the cursor is.
      if (next < i - Math.min(column, SHORT_GAP) || column === 0)
        out += `${ESC}[${Math.floor(i / this.columns) + 1};${column + 1}H`;
      else while (next < i) put(next);
      put(i);
    });
    this.shown = wanted;
    return out;
  }
}
