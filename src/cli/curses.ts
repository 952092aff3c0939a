/** `-display curses`: the display on the terminal, and the terminal as the keyboard. */
import { graphicsMessage, messageScreen, RESTORE, TAKE_OVER, TerminalScreen } from '../display/terminal-screen.ts';
import { TerminalKeys } from '../display/terminal-keys.ts';
import { takeTerminal, type Terminal } from '../host/node/stdio.ts';
import type { Machine } from '../index.ts';

/** From one look at the display to the next. */
const REFRESH_MS = 40;
/** How long the rest of an escape sequence may take. */
const SEQUENCE_MS = 30;
const NO_DISPLAY = 'This VM has no graphic display device.';
const ESCAPE = 'ctrl-a';
const CONSOLE = /^alt-[1-9]$/;

/** Whether `-display curses` can be had. @returns why not, or null */
export function cursesObstacle(): string | null {
  return process.stdin.isTTY && process.stdout.isTTY ? null : 'needs a terminal';
}

/** Shows the machine's display until it ends. @param exit, save what Ctrl-A X and Ctrl-A S do */
export function showOnTerminal(machine: Machine, exit: () => void, save: (() => void) | null): void {
  const terminal = takeTerminal(TAKE_OVER, RESTORE);
  const screen = new TerminalScreen(terminal.columns, terminal.rows);
  terminal.onResize(() => terminal.write(screen.redraw(terminal.columns, terminal.rows)));
  const act = { x: exit, s: save ?? ((): void => undefined) };
  readKeys(terminal, machine, act, () => terminal.write(screen.redraw()));
  void refresh(terminal, screen, machine);
}

async function refresh(terminal: Terminal, screen: TerminalScreen, machine: Machine): Promise<void> {
  while (terminal.taken && machine.state !== 'shutdown' && machine.state !== 'crashed') {
    const seen = await machine.screen();
    // What the terminal has not taken yet must not grow without end.
    if (terminal.taken && terminal.ready) {
      const text = seen !== null && 'cells' in seen ? seen : messageScreen(seen === null ? NO_DISPLAY : graphicsMessage(seen));
      terminal.write(screen.show(text));
    }
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
  }
}

/** Ctrl-A is the escape character, as on a shared serial terminal: X ends the emulator, S saves it, Ctrl-A sends itself. */
function readKeys(terminal: Terminal, machine: Machine, act: { x: () => void; s: () => void }, redraw: () => void): void {
  const keys = new TerminalKeys();
  let escaped = false;
  let timer: NodeJS.Timeout | undefined;
  const press = (key: string): void => {
    const wasEscaped = escaped;
    escaped = !wasEscaped && key === ESCAPE;
    if (escaped) return;
    if (wasEscaped && key !== ESCAPE) {
      if (key === 'x' || key === 'shift-x') act.x();
      if (key === 's' || key === 'shift-s') act.s();
      return;
    }
    // Alt and a digit choose a console: there is the display's only, which is drawn anew.
    if (CONSOLE.test(key)) redraw();
    else machine.keyboard.press(key).catch(() => undefined);
  };
  terminal.onInput((data) => {
    clearTimeout(timer);
    for (const key of keys.feed(data)) press(key);
    if (keys.waiting) timer = setTimeout(() => keys.flush().forEach(press), SEQUENCE_MS);
  });
}
