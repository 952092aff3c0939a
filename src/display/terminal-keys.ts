/**
 * What is typed on a terminal as keys of a PC keyboard with US layout, by the names of keys.ts.
 * Sequences are those of xterm, the Linux console and rxvt. ESC before anything else is Alt.
 */
import { keyOfCharacter } from './keys.ts';

const ESC = 0x1b;
const DELETE = 0x7f;

/** Final characters of CSI and SS3 sequences without a number. */
const LETTERS: Record<string, string> = {
  A: 'up',
  B: 'down',
  C: 'right',
  D: 'left',
  E: 'kp_5',
  F: 'end',
  H: 'home',
  P: 'f1',
  Q: 'f2',
  R: 'f3',
  S: 'f4',
  M: 'kp_enter',
};
/** Numbers of CSI sequences that end in ~. */
const NUMBERS: Record<number, string> = {
  1: 'home',
  2: 'insert',
  3: 'delete',
  4: 'end',
  5: 'pgup',
  6: 'pgdn',
  7: 'home',
  8: 'end',
  ...Object.fromEntries([11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 23, 24].map((code, i) => [code, `f${i + 1}`])),
};
/** The Linux console's F1 to F5: CSI [ A to CSI [ E. */
const LINUX = 'ABCDE';

/** CSI or SS3, number, modifiers (1 + shift 1, alt 2, ctrl 4), final character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one.
const SEQUENCE = /^\x1b(?:\[\[([A-E])|[[O](\d*)(?:;(\d+))?([A-Za-z~]))/;
/** What may still become a sequence. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: escape sequences begin with one.
const UNFINISHED = /^\x1b(?:\[\[?[\d;]*|O)?$/;

function withModifiers(key: string, modifiers: number): string {
  const held = [modifiers & 4 ? 'ctrl-' : '', modifiers & 2 ? 'alt-' : '', modifiers & 1 ? 'shift-' : ''];
  return held.join('') + key;
}

function sequenceKey([, linux, number, modifiers, final]: RegExpExecArray): string | null {
  if (linux !== undefined) return `f${LINUX.indexOf(linux) + 1}`;
  if (final === 'Z') return 'shift-tab';
  const key = final === '~' ? NUMBERS[Number(number)] : LETTERS[final!];
  return key === undefined ? null : withModifiers(key, Math.max(0, Number(modifiers ?? 1) - 1));
}

/** Key of a control character: Ctrl with a letter, unless it has a key of its own. */
function controlKey(code: number): string | null {
  switch (code) {
    case 0:
      return 'ctrl-spc';
    case 8:
    case DELETE:
      return 'backspace';
    case 9:
      return 'tab';
    case 10:
    case 13:
      return 'ret';
    case ESC:
      return 'esc';
    case 28:
      return 'ctrl-backslash';
    case 29:
      return 'ctrl-bracket_right';
    case 30:
      return 'ctrl-6';
    case 31:
      return 'ctrl-minus';
    default:
      return code < 27 ? `ctrl-${String.fromCharCode(code + 96)}` : null;
  }
}

function plainKey(code: number): string | null {
  return code < 32 || code === DELETE ? controlKey(code) : keyOfCharacter(String.fromCharCode(code));
}

/** Takes bytes as they come; a sequence may arrive in pieces. */
export class TerminalKeys {
  private rest = '';

  /** Something may be the beginning of a sequence: if nothing follows soon, `flush`. */
  get waiting(): boolean {
    return this.rest !== '';
  }

  /** @returns combinations of keys; characters that the keyboard lacks are left out */
  feed(data: Uint8Array): string[] {
    let text = this.rest + String.fromCharCode(...data);
    this.rest = '';
    const keys: string[] = [];
    while (text !== '') {
      if (UNFINISHED.test(text)) {
        this.rest = text;
        break;
      }
      const [key, length] = this.first(text);
      if (key !== null) keys.push(key);
      text = text.slice(length);
    }
    return keys;
  }

  /** Nothing follows what has been held back. */
  flush(): string[] {
    const { rest } = this;
    this.rest = '';
    if (rest === '') return [];
    const others =
      rest.length === 1
        ? []
        : [`alt-${plainKey(rest.charCodeAt(1))}`, ...[...rest.slice(2)].map((c) => plainKey(c.charCodeAt(0)))];
    return others.length === 0 ? ['esc'] : others.filter((key) => key !== null);
  }

  private first(text: string): [key: string | null, length: number] {
    const sequence = SEQUENCE.exec(text);
    if (sequence !== null) return [sequenceKey(sequence), sequence[0].length];
    const code = text.charCodeAt(0);
    if (code !== ESC) return [plainKey(code), 1];
    const key = plainKey(text.charCodeAt(1));
    return [key === null ? null : `alt-${key}`, 2];
  }
}
