/** The escape character of a shared terminal, as QEMU has it: Ctrl-A, then a letter. */

const CTRL_A = 1;

export type EscapeAction = 'help' | 'exit' | 'monitor' | 'break' | 'save' | 'timestamps';

const ACTIONS: Record<string, EscapeAction> = {
  h: 'help',
  '?': 'help',
  x: 'exit',
  c: 'monitor',
  b: 'break',
  s: 'save',
  t: 'timestamps',
};

export const ESCAPE_HELP = [
  '',
  'C-a h    print this help',
  'C-a x    exit emulator',
  'C-a s    save the machine to a file and exit (if -save-state)',
  'C-a t    toggle console timestamps',
  'C-a b    send break (magic sysrq)',
  'C-a c    switch between console and monitor',
  'C-a C-a  sends C-a',
  '',
].join('\r\n');

/** Takes the escapes out of what is typed. */
export class EscapeFilter {
  private escaped = false;
  private readonly act: (action: EscapeAction) => void;

  constructor(act: (action: EscapeAction) => void) {
    this.act = act;
  }

  /** @returns what is for the guest */
  filter(data: Uint8Array): Uint8Array {
    const passed: number[] = [];
    for (const byte of data) {
      if (this.escaped) {
        this.escaped = false;
        if (byte === CTRL_A) passed.push(CTRL_A);
        else this.command(byte);
      } else if (byte === CTRL_A) this.escaped = true;
      else passed.push(byte);
    }
    return Uint8Array.from(passed);
  }

  private command(byte: number): void {
    const action = ACTIONS[String.fromCharCode(byte).toLowerCase()];
    if (action !== undefined) this.act(action);
  }
}

/** Puts the time since the first line before each line of output. */
export class Timestamps {
  enabled = false;
  private lineStart = true;
  private first: number | null = null;
  private readonly now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.now = now;
  }

  mark(data: Uint8Array): Uint8Array {
    if (!this.enabled) return data;
    const out: number[] = [];
    for (const byte of data) {
      if (this.lineStart) {
        this.first ??= this.now();
        out.push(...new TextEncoder().encode(stamp(this.now() - this.first)));
      }
      this.lineStart = byte === 10;
      out.push(byte);
    }
    return Uint8Array.from(out);
  }
}

function stamp(ms: number): string {
  const two = (value: number, digits = 2): string => String(Math.floor(value)).padStart(digits, '0');
  const seconds = ms / 1000;
  return `[${two(seconds / 3600)}:${two((seconds / 60) % 60)}:${two(seconds % 60)}.${two(ms % 1000, 3)}] `;
}
