/** AVX data movement that SSE does not have, or not in this form: 32 bytes at once, three operands, broadcasts. */
import type { Builder, Value } from '../../ir/builder.ts';
import { AVX, AVX2 } from './avx.ts';
import { imm8, pick, readF32, readF64, vector, zero } from './sse-common.ts';
import { movsd, movsdStore, movss, movssStore } from './sse-move.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

// --- 32 bytes. ---

/** Nothing is written when any part cannot be: where the bytes may lie in two pages both are probed. */
function storeYmm(t: X86Translator, aligned: boolean): void {
  const { b } = t;
  const [low, high] = t.readYmm(t.reg);
  if (t.isRegister) return t.writeYmm(t.rm, low, high);
  const address = t.address(32, true);
  if (aligned) t.requireAligned(32, true);
  else {
    b.ld8w(address);
    const lastPage = b.and64(b.add64(address, b.i64(31)), b.i64(-4096));
    b.ld8w(b.select64(b.gtu64(lastPage, address), lastPage, address));
  }
  b.stv(address, low);
  b.stv(b.add64(address, b.i64(16)), high);
}

const load32 = (aligned: boolean): Translate =>
  vector((t) => {
    if (aligned) t.requireAligned(32, false);
    t.writeYmm(t.reg, ...t.readYmmRm());
  });

const store32 = (aligned: boolean): Translate => vector((t) => storeYmm(t, aligned));

const loadRow = (encoding: string, name: string, aligned: boolean, options = AVX): Row =>
  row(`VEX.L1 ${encoding}`, name, encoding.endsWith('mem') ? 'Vy,My' : 'Vy,Wy', load32(aligned), options);
const storeRow = (encoding: string, name: string, aligned: boolean): Row =>
  row(`VEX.L1 ${encoding}`, name, encoding.endsWith('mem') ? 'My,Vy' : 'Wy,Vy', store32(aligned), AVX);

const moves = (prefix: string, opcodes: [string, string], name: string, aligned: boolean): Row[] => [
  loadRow(`${prefix} 0F ${opcodes[0]} /r`, name, aligned),
  storeRow(`${prefix} 0F ${opcodes[1]} /r`, name, aligned),
];

// --- Lanes. ---

const movddup = vector((t) => {
  const [low, high] = t.readYmmRm();
  t.writeYmm(t.reg, pick(t.b, low, low, 8, [0, 0]), pick(t.b, high, high, 8, [0, 0]));
});

const MASKS = { 1: ['bitmask8x16', 16], 4: ['bitmask32x4', 4], 8: ['bitmask64x2', 2] } as const;

const mask32 = (bytes: 1 | 4 | 8): Translate =>
  vector((t) => {
    const { b } = t;
    const [op, lanes] = MASKS[bytes];
    const [low, high] = t.readYmm(t.rm);
    t.writeReg(t.reg, 4, b.or32(b[op](low), b.shl32(b[op](high), b.i32(lanes))));
  });

// --- Broadcasts. ---

/** The low lane of rm, from memory no more than that. */
function broadcastValue(t: X86Translator, bytes: 1 | 2 | 4 | 8): Value {
  const { b } = t;
  if (bytes === 8) return b.splat64(t.isRegister ? b.lane64(t.readXmm(t.rm), 0) : b.ld64(t.address(8, false)));
  if (!t.isRegister) {
    const v = t.load(bytes, t.address(bytes, false));
    return bytes === 4 ? b.splat32(v) : bytes === 2 ? b.splat16(v) : b.splat8(v);
  }
  const x = t.readXmm(t.rm);
  return bytes === 4 ? b.splat32(b.lane32(x, 0)) : bytes === 2 ? b.splat16(b.lane16u(x, 0)) : b.splat8(b.lane8u(x, 0));
}

const broadcast = (bytes: 1 | 2 | 4 | 8): Translate =>
  vector((t) => {
    const v = broadcastValue(t, bytes);
    if (t.vexL) t.writeYmm(t.reg, v, v);
    else t.writeXmm(t.reg, v);
  });

const broadcast128 = vector((t) => {
  const v = t.b.ldv(t.address(16, false));
  t.writeYmm(t.reg, v, v);
});

const LETTERS = { 1: 'b', 2: 'w', 4: 'd', 8: 'q' } as const;

function broadcastRows(opcode: string, name: string, bytes: 1 | 2 | 4 | 8): Row[] {
  const encoding = `66 0F38 ${opcode} /r`;
  return [0, 1].map((l) => row(`VEX.L${l}.W0 ${encoding}`, name, `V${l ? 'y' : 'o'},W${LETTERS[bytes]}`, broadcast(bytes), AVX2));
}

// --- Halves. ---

const insert128 = vector((t) => {
  const part = t.readXmmRm(16);
  const [low, high] = t.readYmm(t.vexV);
  if (imm8(t) & 1) t.writeYmm(t.reg, low, part);
  else t.writeYmm(t.reg, part, high);
});

const extract128 = vector((t) => {
  const part = t.readYmm(t.reg)[imm8(t) & 1]!;
  if (t.isRegister) t.writeXmm(t.rm, part);
  else t.b.stv(t.address(16, true), part);
});

// --- Upper halves. ---

const registers = (t: X86Translator): number => (t.code64 ? 16 : 8);

/** VZEROUPPER, VZEROALL: registers 8 to 15 keep their values outside 64-bit mode. */
const clear = (all: boolean): Translate =>
  vector((t) => {
    const nothing = zero(t.b);
    for (let n = 0; n < registers(t); n++) t.writeYmm(n, all ? nothing : t.readYmm(n)[0], nothing);
  });

// --- Widening. ---

/** The low and the high half of the elements, each made twice as wide. */
type Widen = (b: Builder, x: Value) => readonly [low: Value, high: Value];

function widen(sign: 's' | 'u', steps: readonly (8 | 16 | 32)[]): Widen {
  return (b, x) => {
    const step = (v: Value, bits: 8 | 16 | 32, high: boolean): Value => {
      const half = high ? 'high' : 'low';
      if (bits === 8) return b[`ext${half}${sign}8x16`](v);
      return bits === 16 ? b[`ext${half}${sign}16x8`](v) : b[`ext${half}${sign}32x4`](v);
    };
    const before = steps.slice(0, -1).reduce((v, bits) => step(v, bits, false), x);
    const last = steps.at(-1)!;
    return [step(before, last, false), step(before, last, true)];
  };
}

function wideningRows(first: number, name: string, sign: 's' | 'u'): Row[] {
  const forms: [string, 4 | 8 | 16, readonly (8 | 16 | 32)[]][] = [
    ['BW', 16, [8]],
    ['BD', 8, [8, 16]],
    ['BQ', 4, [8, 16, 32]],
    ['WD', 16, [16]],
    ['WQ', 8, [16, 32]],
    ['DQ', 16, [32]],
  ];
  return forms.map(([suffix, bytes, steps], i) => {
    const operate = widen(sign, steps);
    const size = bytes === 16 ? 'o' : bytes === 8 ? 'q' : 'd';
    const translate = vector((t) => t.writeYmm(t.reg, ...operate(t.b, t.readXmmRm(bytes))));
    return row(`VEX.L1 66 0F38 ${(first + i).toString(16)} /r`, `${name}${suffix}`, `Vy,W${size}`, translate, AVX2);
  });
}

/** Scalars: from memory two operands, between registers three. */
function scalarRows(prefix: string, name: string, size: string, load: Translate, store: Translate): Row[] {
  return [
    row(`VEX ${prefix} 0F 10 /r mem`, name, `Vo,M${size}`, load, AVX),
    row(`VEX ${prefix} 0F 10 /r reg`, name, `Vo,Ho,U${size}`, load, AVX),
    row(`VEX ${prefix} 0F 11 /r mem`, name, `M${size},Vo`, store, AVX),
    row(`VEX ${prefix} 0F 11 /r reg`, name, `U${size},Ho,Vo`, store, AVX),
  ];
}

const broadcastSingle = vector((t) => {
  const v = t.b.splatf32(readF32(t));
  if (t.vexL) t.writeYmm(t.reg, v, v);
  else t.writeXmm(t.reg, v);
});
const broadcastDouble = vector((t) => {
  const v = t.b.splatf64(readF64(t));
  t.writeYmm(t.reg, v, v);
});

export const avxMoves = (): readonly Row[] => [
  ...moves('NP', ['10', '11'], 'VMOVUPS', false),
  ...moves('66', ['10', '11'], 'VMOVUPD', false),
  ...moves('NP', ['28', '29'], 'VMOVAPS', true),
  ...moves('66', ['28', '29'], 'VMOVAPD', true),
  ...moves('66', ['6F', '7F'], 'VMOVDQA', true),
  ...moves('F3', ['6F', '7F'], 'VMOVDQU', false),
  loadRow('F2 0F F0 /r mem', 'VLDDQU', false),
  loadRow('66 0F38 2A /r mem', 'VMOVNTDQA', true, AVX2),
  storeRow('NP 0F 2B /r mem', 'VMOVNTPS', true),
  storeRow('66 0F 2B /r mem', 'VMOVNTPD', true),
  storeRow('66 0F E7 /r mem', 'VMOVNTDQ', true),
  ...scalarRows('F3', 'VMOVSS', 'd', movss, movssStore),
  ...scalarRows('F2', 'VMOVSD', 'q', movsd, movsdStore),
  row('VEX.L1 F2 0F 12 /r', 'VMOVDDUP', 'Vy,Wy', movddup, AVX),
  row('VEX.L1 66 0F D7 /r reg', 'VPMOVMSKB', 'Gd,Uy', mask32(1), AVX2),
  row('VEX.L1 NP 0F 50 /r reg', 'VMOVMSKPS', 'Gd,Uy', mask32(4), AVX),
  row('VEX.L1 66 0F 50 /r reg', 'VMOVMSKPD', 'Gd,Uy', mask32(8), AVX),
  row('VEX.L0.W0 66 0F38 18 /r mem', 'VBROADCASTSS', 'Vo,Md', broadcastSingle, AVX),
  row('VEX.L1.W0 66 0F38 18 /r mem', 'VBROADCASTSS', 'Vy,Md', broadcastSingle, AVX),
  row('VEX.L0.W0 66 0F38 18 /r reg', 'VBROADCASTSS', 'Vo,Ud', broadcastSingle, AVX2),
  row('VEX.L1.W0 66 0F38 18 /r reg', 'VBROADCASTSS', 'Vy,Ud', broadcastSingle, AVX2),
  row('VEX.L1.W0 66 0F38 19 /r mem', 'VBROADCASTSD', 'Vy,Mq', broadcastDouble, AVX),
  row('VEX.L1.W0 66 0F38 19 /r reg', 'VBROADCASTSD', 'Vy,Uq', broadcastDouble, AVX2),
  row('VEX.L1.W0 66 0F38 1A /r mem', 'VBROADCASTF128', 'Vy,Mo', broadcast128, AVX),
  row('VEX.L1.W0 66 0F38 5A /r mem', 'VBROADCASTI128', 'Vy,Mo', broadcast128, AVX2),
  ...broadcastRows('78', 'VPBROADCASTB', 1),
  ...broadcastRows('79', 'VPBROADCASTW', 2),
  ...broadcastRows('58', 'VPBROADCASTD', 4),
  ...broadcastRows('59', 'VPBROADCASTQ', 8),
  row('VEX.L1.W0 66 0F3A 18 /r', 'VINSERTF128', 'Vy,Hy,Wo,Ib', insert128, AVX),
  row('VEX.L1.W0 66 0F3A 38 /r', 'VINSERTI128', 'Vy,Hy,Wo,Ib', insert128, AVX2),
  row('VEX.L1.W0 66 0F3A 19 /r', 'VEXTRACTF128', 'Wo,Vy,Ib', extract128, AVX),
  row('VEX.L1.W0 66 0F3A 39 /r', 'VEXTRACTI128', 'Wo,Vy,Ib', extract128, AVX2),
  row('VEX.L0 NP 0F 77', 'VZEROUPPER', '', clear(false), AVX),
  row('VEX.L1 NP 0F 77', 'VZEROALL', '', clear(true), AVX),
  ...wideningRows(0x20, 'VPMOVSX', 's'),
  ...wideningRows(0x30, 'VPMOVZX', 'u'),
];
