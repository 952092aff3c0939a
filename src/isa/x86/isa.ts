/** x86 as the engine sees it: translation of blocks. */
import type { Builder } from '../../ir/builder.ts';
import { FetchFault } from '../isa.ts';
import type { CodeReader, Isa } from '../isa.ts';
import { DECODE_OK, Decoder } from './decode.ts';
import { X86_HELPERS, X86_INLINES } from './helpers.ts';
import { ROW_FEATURES, rowsOf } from './rows.ts';
import { BF_CPL_SHIFT, BF_CS_BASE, BF_HOT, CS, G, SEG, SEG_BASE, SEG_SIZE, X86_GLOBALS } from './state.ts';
import { X87_REHEARSAL } from './rehearsal.ts';
import { OpcodeTable } from './tables.ts';
import { X86Translator } from './translator.ts';
import { writeVectorConstants } from './vector-constants.ts';
import { x87Stack } from './x87/float-stack.ts';
import { startX87, x87Module } from './x87/runtime.ts';

/** Longer blocks cost translation time when their tail is not reached. */
const MAX_INSNS = 64;

interface Unit {
  readonly t: X86Translator;
  readonly decoder: Decoder;
}

/** One translator for each builder: both are used again for every block. */
class Units {
  private readonly made = new WeakMap<Builder, Unit>();
  private readonly table: OpcodeTable;

  constructor(has: (feature: string) => boolean) {
    this.table = new OpcodeTable(rowsOf, has);
  }

  of(b: Builder): Unit {
    let unit = this.made.get(b);
    if (!unit) {
      const t = new X86Translator(b);
      unit = { t, decoder: new Decoder(this.table, t) };
      this.made.set(b, unit);
    }
    return unit;
  }
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

function translate(unit: Unit, code: CodeReader, flags: number, maxInsns: number): void {
  const { t } = unit;
  const { b } = t;
  t.code = code;
  t.beginBlock();
  const limit = t.limitInsns(flags, Math.min(maxInsns, MAX_INSNS));
  for (let done = 0; !b.ended; done++) {
    const start = code.offset;
    if (done >= limit || (done > 0 && start >= code.pageEnd)) return t.goOn(start);
    const vector = decodeNext(unit, code, flags, done === 0);
    if (vector === null) return t.goOn(start);
    t.beginInsn();
    if (vector !== DECODE_OK) t.raise(vector);
    else t.row!.translate(t);
  }
}

/**
 * x86 with the instructions of one CPU model.
 * @param has which CPUID features it has, by the names of system/models.ts
 */
export function x86Isa(has: (feature: string) => boolean): Isa {
  const units = new Units(has);
  return {
    name: 'x86',
    origin: { module: new URL('./isa.ts', import.meta.url).href, argument: ROW_FEATURES.filter(has) },
    globals: X86_GLOBALS,
    helpers: X86_HELPERS,
    inlines: X86_INLINES,
    rehearsal: X87_REHEARSAL,
    stackPointer: G[4]!,
    floatStack: x87Stack(X86_HELPERS),
    favoursSpeed: (flags) => ((flags >> BF_CPL_SHIFT) & 3) === 3,
    hotFlags: (flags) => flags | BF_HOT,
    codeBase: SEG + SEG_SIZE * CS + SEG_BASE,
    codeIsLinear: (flags) => (flags & BF_CS_BASE) === 0,
    translate: (b, code, flags, maxInsns) => translate(units.of(b), code, flags, maxInsns),
    runtimeModule: x87Module,
    instantiate: (memory, vcpuBase, bytes) => {
      writeVectorConstants(memory, vcpuBase);
      return startX87(memory, vcpuBase, bytes);
    },
  };
}

/** See IsaOrigin. @param features those that the CPU has of all that rows name */
export function makeIsa(features: unknown): Isa {
  const present = new Set(features as readonly string[]);
  return x86Isa((feature) => present.has(feature));
}
