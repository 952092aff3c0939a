/** What was translated, for traces: guest code, its IR, and what became of it; and what of it is run. */
import type { Builder, Global } from '../ir/builder.ts';
import type { Helper } from '../ir/helpers.ts';
import { printBlock } from '../ir/printer.ts';

/** Categories that `traceBlock` writes. */
export const BLOCK_CATEGORIES = ['in_asm', 'op', 'out_asm'] as const;
/** Category of entries into translated code. */
export const ENTRIES = 'exec';

export interface TranslatedBlock {
  /** Virtual address of the first byte, as hexadecimal text. */
  readonly pc: string;
  readonly guest: Uint8Array;
  readonly builder: Builder;
  readonly globals: readonly Global[];
  readonly helpers: readonly Helper[];
  /** Bytes of interpreter code. */
  readonly codeBytes: number;
}

/** @param wants is a category traced? */
export function traceBlock(
  { pc, guest, builder, globals, helpers, codeBytes }: TranslatedBlock,
  wants: (category: string) => boolean,
  trace: (category: string, line: string) => void,
): void {
  if (wants('in_asm')) {
    const bytes = Array.from(guest, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    trace('in_asm', `${pc}: ${builder.insns} instructions: ${bytes}`);
  }
  if (wants('op')) trace('op', `${pc}:\n${printBlock(builder, { globals, helpers })}`);
  if (wants('out_asm')) trace('out_asm', `${pc}: ${guest.length} bytes became ${codeBytes} of interpreter code`);
}

const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');

/**
 * @returns what writes a line for an entry at a pc under block flags, but once for the same entry, which may
 * have to be looked up first and so begin anew. @param count instructions executed so far
 */
export function entryTrace(
  trace: (category: string, line: string) => void,
): (high: number, low: number, flags: number, count: number) => void {
  let [lastLow, lastCount] = [0, -1];
  return (high, low, flags, count) => {
    if (low === lastLow && count === lastCount) return;
    [lastLow, lastCount] = [low, count];
    trace(ENTRIES, `${hex(high)}${hex(low)} flags ${hex(flags)}`);
  };
}
