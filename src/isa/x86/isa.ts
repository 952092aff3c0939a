/** x86 as the engine sees it: translation of blocks. */
import type { Builder } from '../../ir/builder.ts';
import { FetchFault } from '../isa.ts';
import type { CodeReader, Isa } from '../isa.ts';
import { DECODE_OK, Decoder } from './decode.ts';
import { X86_HELPERS } from './helpers.ts';
import { LEAVE_SINGLE_STEP } from './leave.ts';
import { X86_ROWS } from './rows.ts';
import { BF_CPL_SHIFT, BF_CS_BASE, G, X86_GLOBALS } from './state.ts';
import { buildTable } from './tables.ts';
import { X86Translator } from './translator.ts';
import { makeX87 } from './x87/runtime.ts';

const TABLE = buildTable(X86_ROWS);

/** Longer blocks cost translation time when their tail is not reached. */
const MAX_INSNS = 64;

interface Unit {
  readonly t: X86Translator;
  readonly decoder: Decoder;
}

/** One translator for each builder: both are used again for every block. */
const units = new WeakMap<Builder, Unit>();

function unitOf(b: Builder): Unit {
  let unit = units.get(b);
  if (!unit) {
    const t = new X86Translator(b);
    unit = { t, decoder: new Decoder(TABLE, t) };
    units.set(b, unit);
  }
  return unit;
}

/** Decodes the next instruction. @returns a vector, DECODE_OK, or null: not in this block */
function decodeNext(unit: Unit, code: CodeReader, flags: number, first: boolean): number | null {
  const start = code.offset;
  let vector: number;
  try {
    vector = unit.decoder.decode(code, flags);
  } catch (error) {
    if (first || !(error instanceof FetchFault)) throw error;
    return null;
  }
  return !first && unit.t.end > code.pageEnd ? ((code.offset = start), null) : vector;
}

function translate(b: Builder, code: CodeReader, flags: number, maxInsns: number): void {
  const unit = unitOf(b);
  const { t } = unit;
  t.beginBlock();
  const limit = t.limitInsns(flags, Math.min(maxInsns, MAX_INSNS));
  for (let done = 0; !b.ended; done++) {
    const start = code.offset;
    if (done >= limit || (done > 0 && start >= code.pageEnd)) return endBlock(t, start);
    const vector = decodeNext(unit, code, flags, done === 0);
    if (vector === null) return endBlock(t, start);
    t.beginInsn();
    if (vector !== DECODE_OK) t.raise(vector);
    else t.row!.translate(t);
  }
}

function endBlock(t: X86Translator, offset: number): void {
  if (t.singleStep) t.b.leave(LEAVE_SINGLE_STEP, 0, offset);
  else t.b.goto(offset);
}

export const X86_ISA: Isa = {
  name: 'x86',
  globals: X86_GLOBALS,
  helpers: X86_HELPERS,
  stackPointer: G[4]!,
  favoursSpeed: (flags) => ((flags >> BF_CPL_SHIFT) & 3) === 3,
  codeIsLinear: (flags) => (flags & BF_CS_BASE) === 0,
  translate,
  instantiate: makeX87,
};
