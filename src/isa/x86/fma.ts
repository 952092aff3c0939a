/** FMA: 132, 213 and 231 forms of x * y + z. */
import type { Value } from '../../ir/builder.ts';
import { wide } from './avx.ts';
import { fusedPacked, fusedScalar } from './sse-exact.ts';
import type { PackedFormat, Signs } from './sse-exact.ts';
import { lowF32, lowF64, readF32, readF64, setLowF32, setLowF64, vector } from './sse-common.ts';
import { row } from './tables.ts';
import type { Row, RowOptions, Translate } from './tables.ts';

const FMA: RowOptions = { feature: 'fma' };

/** Operand numbers (1 destination, 2 VEX.vvvv, 3 rm) of x, y and z. */
type Form = readonly [x: number, y: number, z: number];

const PLUS = false;
const MINUS = true;

const inOrder = ([x, y, z]: Form, operands: readonly Value[]): [Value, Value, Value] => [
  operands[x - 1]!,
  operands[y - 1]!,
  operands[z - 1]!,
];

const packedForm = (form: Form, format: PackedFormat, signs: Signs): Translate =>
  vector((t) => {
    const last = t.readXmmRm(16);
    const [x, y, z] = inOrder(form, [t.readXmm(t.reg), t.readXmm(t.vexV), last]);
    t.writeXmm(t.reg, fusedPacked(t, format, x, y, z, signs));
  });

const scalarForm = (form: Form, format: 'f32' | 'f64', signs: Signs): Translate =>
  vector((t) => {
    const { b } = t;
    const single = format === 'f32';
    const last = single ? readF32(t) : readF64(t);
    const low = (n: number): Value => (single ? lowF32(b, t.readXmm(n)) : lowF64(b, t.readXmm(n)));
    const [x, y, z] = inOrder(form, [low(t.reg), low(t.vexV), last]);
    const result = fusedScalar(t, format, x, y, z, signs);
    const old = t.readXmm(t.reg);
    t.writeXmm(t.reg, single ? setLowF32(b, old, result) : setLowF64(b, old, result));
  });

/** Additions in the odd lanes and subtractions in the even ones, or the other way round. */
const alternatingForm = (form: Form, format: PackedFormat, subtractsOdd: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const last = t.readXmmRm(16);
    const [x, y, z] = inOrder(form, [t.readXmm(t.reg), t.readXmm(t.vexV), last]);
    const top = 0x80000000 | 0;
    const [even, odd] = subtractsOdd ? [0, top] : [top, 0];
    const signs = format === 'f32x4' ? b.v128(even, odd, even, odd) : b.v128(0, even, 0, odd);
    // NaNs keep their signs.
    const changed = b.bitselect(z, b.xorv(z, signs), b[`ne${format}`](z, z));
    t.writeXmm(t.reg, fusedPacked(t, format, x, y, changed, { product: PLUS, addend: PLUS }));
  });

const FORMS: readonly (readonly [digits: string, form: Form, opcodes: number])[] = [
  ['132', [1, 3, 2], 0x90],
  ['213', [2, 1, 3], 0xa0],
  ['231', [2, 3, 1], 0xb0],
];

/** Opcode beside the form's, name, signs; the scalar form has the next opcode. */
const OPERATIONS: readonly (readonly [offset: number, name: string, signs: Signs])[] = [
  [8, 'VFMADD', { product: PLUS, addend: PLUS }],
  [10, 'VFMSUB', { product: PLUS, addend: MINUS }],
  [12, 'VFNMADD', { product: MINUS, addend: PLUS }],
  [14, 'VFNMSUB', { product: MINUS, addend: MINUS }],
];

function packedRows(opcode: number, name: string, make: (format: PackedFormat) => Translate): Row[] {
  return (
    [
      ['f32x4', 0, 'PS'],
      ['f64x2', 1, 'PD'],
    ] as const
  ).flatMap(([format, w, suffix]) => {
    const translate = make(format);
    const encoding = (l: number): string => `VEX.L${l}.W${w} 66 0F38 ${opcode.toString(16)} /r`;
    return [
      row(encoding(0), name + suffix, 'Vo,Ho,Wo', translate, FMA),
      row(encoding(1), name + suffix, 'Vy,Hy,Wy', wide(translate), FMA),
    ];
  });
}

function formRows([digits, form, first]: (typeof FORMS)[number]): Row[] {
  const scalar = (opcode: number, name: string, signs: Signs): Row[] => [
    row(`VEX.W0 66 0F38 ${opcode.toString(16)} /r`, `${name}SS`, 'Vo,Ho,Wd', scalarForm(form, 'f32', signs), FMA),
    row(`VEX.W1 66 0F38 ${opcode.toString(16)} /r`, `${name}SD`, 'Vo,Ho,Wq', scalarForm(form, 'f64', signs), FMA),
  ];
  return [
    ...OPERATIONS.flatMap(([offset, name, signs]) => [
      ...packedRows(first + offset, name + digits, (format) => packedForm(form, format, signs)),
      ...scalar(first + offset + 1, name + digits, signs),
    ]),
    ...packedRows(first + 6, `VFMADDSUB${digits}`, (format) => alternatingForm(form, format, false)),
    ...packedRows(first + 7, `VFMSUBADD${digits}`, (format) => alternatingForm(form, format, true)),
  ];
}

export const fmaForms = (): readonly Row[] => FORMS.flatMap(formRows);
