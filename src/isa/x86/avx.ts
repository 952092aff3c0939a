/**
 * AVX and AVX2 forms of the SSE instructions, made from the SSE rows: the same meaning with a
 * first source of its own, and for ymm registers once for each half. Forms that are more than that
 * have files of their own (avx-move.ts, avx-permute.ts, avx-memory.ts).
 */
import { vectorReady } from './sse-common.ts';
import { SSE_FLOAT_ROWS } from './sse-float.ts';
import { SSE_INTEGER_ROWS } from './sse-integer.ts';
import { SSE_MOVE_ROWS } from './sse-move.ts';
import { SSE_SHUFFLE_ROWS } from './sse-shuffle.ts';
import { SSE_STRING_ROWS } from './sse-string.ts';
import { row } from './tables.ts';
import type { Row, RowOptions, Translate } from './tables.ts';

export const AVX: RowOptions = { feature: 'avx' };
export const AVX2: RowOptions = { feature: 'avx2' };

/** Translates for each half of the ymm registers. */
export const wide =
  (translate: Translate): Translate =>
  (t) => {
    if (vectorReady(t)) t.eachHalf(translate);
  };

interface Shape {
  /** VEX.vvvv is the first source. */
  readonly three: boolean;
  /** VEX.L does not matter (scalars). */
  readonly anyLength: boolean;
  /** Feature that brings the form with ymm registers, or null. */
  readonly wide: 'avx' | 'avx2' | null;
}

/** Names of SSE instructions by how their AVX forms look. */
const SHAPES: readonly (readonly [shape: Shape, names: string])[] = [
  [
    { three: true, anyLength: false, wide: 'avx' },
    'ADDPS ADDPD MULPS MULPD SUBPS SUBPD DIVPS DIVPD MINPS MINPD MAXPS MAXPD ANDPS ANDPD ANDNPS ANDNPD ' +
      'ORPS ORPD XORPS XORPD UNPCKLPS UNPCKLPD UNPCKHPS UNPCKHPD SHUFPS SHUFPD ADDSUBPS ADDSUBPD HADDPS ' +
      'HADDPD HSUBPS HSUBPD BLENDPS BLENDPD CMPPS CMPPD',
  ],
  [
    { three: true, anyLength: false, wide: 'avx2' },
    'PUNPCKLBW PUNPCKLWD PUNPCKLDQ PUNPCKHBW PUNPCKHWD PUNPCKHDQ PUNPCKLQDQ PUNPCKHQDQ PACKSSWB PACKUSWB ' +
      'PACKSSDW PACKUSDW PCMPGTB PCMPGTW PCMPGTD PCMPGTQ PCMPEQB PCMPEQW PCMPEQD PCMPEQQ PADDB PADDW PADDD ' +
      'PADDQ PSUBB PSUBW PSUBD PSUBQ PADDUSB PADDUSW PADDSB PADDSW PSUBUSB PSUBUSW PSUBSB PSUBSW PMULLW ' +
      'PMULHW PMULHUW PMULHRSW PMULUDQ PMULDQ PMULLD PMADDWD PMADDUBSW PSADBW PMINUB PMINUW PMINUD PMINSB ' +
      'PMINSW PMINSD PMAXUB PMAXUW PMAXUD PMAXSB PMAXSW PMAXSD PAND PANDN POR PXOR PAVGB PAVGW PHADDW ' +
      'PHADDD PHADDSW PHSUBW PHSUBD PHSUBSW PSHUFB PSIGNB PSIGNW PSIGND PALIGNR MPSADBW PBLENDW',
  ],
  [{ three: true, anyLength: false, wide: null }, 'DPPS DPPD MOVHLPS MOVLHPS PINSRB PINSRW PINSRD INSERTPS'],
  [
    { three: false, anyLength: false, wide: 'avx' },
    'SQRTPS SQRTPD RCPPS RSQRTPS ROUNDPS ROUNDPD MOVSLDUP MOVSHDUP CVTDQ2PS CVTPS2DQ CVTTPS2DQ',
  ],
  [{ three: false, anyLength: false, wide: 'avx2' }, 'PABSB PABSW PABSD PSHUFD PSHUFLW PSHUFHW'],
  [
    { three: false, anyLength: false, wide: null },
    'PHMINPOSUW PCMPESTRM PCMPESTRI PCMPISTRM PCMPISTRI MOVD MOVQ MOVDDUP PEXTRB PEXTRW PEXTRD EXTRACTPS ' +
      'MASKMOVDQU PMOVMSKB MOVMSKPS MOVMSKPD PTEST MOVUPS MOVUPD MOVAPS MOVAPD MOVDQA MOVDQU LDDQU MOVNTPS ' +
      'MOVNTPD MOVNTDQ MOVNTDQA CVTDQ2PD CVTPS2PD CVTPD2PS CVTPD2DQ CVTTPD2DQ PMOVSXBW PMOVSXBD PMOVSXBQ ' +
      'PMOVSXWD PMOVSXWQ PMOVSXDQ PMOVZXBW PMOVZXBD PMOVZXBQ PMOVZXWD PMOVZXWQ PMOVZXDQ',
  ],
  [
    { three: true, anyLength: true, wide: null },
    'ADDSS ADDSD MULSS MULSD SUBSS SUBSD DIVSS DIVSD MINSS MINSD MAXSS MAXSD SQRTSS SQRTSD RCPSS RSQRTSS ' +
      'CMPSS CMPSD CVTSI2SS CVTSI2SD CVTSD2SS CVTSS2SD ROUNDSS ROUNDSD',
  ],
  [{ three: false, anyLength: true, wide: null }, 'UCOMISS UCOMISD COMISS COMISD CVTTSS2SI CVTTSD2SI CVTSS2SI CVTSD2SI'],
];

const SHAPE_OF = new Map(SHAPES.flatMap(([shape, names]) => names.split(' ').map((name) => [name, shape])));

/** Loads of a half (MOVLPS, MOVHPS, ...) take the other half from VEX.vvvv. */
const HALVES = /^MOV[LH]P[SD]$/;
const SHIFTS = /^PS(LL|RL|RA)([WDQ]|DQ)$/;

const text = (r: Row): string[] => r.operands.map((operand) => operand.text);

/** Puts VEX.vvvv between the destination and the other operands. */
const withFirst = ([destination, ...others]: string[]): string[] => [destination!, destination!.replace(/^./, 'H'), ...others];

function formsOf(r: Row, { three, anyLength, wide: feature }: Shape): Row[] {
  const operands = three ? withFirst(text(r)) : text(r);
  const narrow = row(`${anyLength ? 'VEX' : 'VEX.L0'} ${r.encoding}`, `V${r.name}`, operands.join(), r.translate, AVX);
  if (feature === null) return [narrow];
  const doubled = operands.map((operand) => operand.replace(/o$/, 'y')).join();
  return [narrow, row(`VEX.L1 ${r.encoding}`, `V${r.name}`, doubled, wide(r.translate), { feature })];
}

/** Shifts by an immediate write VEX.vvvv; those by a register are in avx-permute.ts for ymm registers. */
function shiftForms(r: Row): Row[] {
  const byImmediate = r.digit >= 0;
  if (byImmediate) {
    return [
      row(`VEX.L0 ${r.encoding}`, `V${r.name}`, 'Ho,Uo,Ib', r.translate, AVX),
      row(`VEX.L1 ${r.encoding}`, `V${r.name}`, 'Hy,Uy,Ib', wide(r.translate), AVX2),
    ];
  }
  return [row(`VEX.L0 ${r.encoding}`, `V${r.name}`, 'Vo,Ho,Wo', r.translate, AVX)];
}

function derive(r: Row): Row[] {
  const shape = SHAPE_OF.get(r.name);
  if (shape) return formsOf(r, shape);
  if (SHIFTS.test(r.name)) return shiftForms(r);
  if (!HALVES.test(r.name)) return [];
  const loads = r.operands[0]!.place === 'V';
  return formsOf(r, { three: loads, anyLength: false, wide: null });
}

export const avxForms = (): readonly Row[] =>
  [...SSE_MOVE_ROWS, ...SSE_INTEGER_ROWS, ...SSE_FLOAT_ROWS, ...SSE_SHUFFLE_ROWS, ...SSE_STRING_ROWS].flatMap(derive);
