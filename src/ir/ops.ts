/**
 * The IR's operation table: the one definition from which the builder, the
 * printer, the verifier, the interpreter and the region compiler are derived.
 *
 * Every operation is total: shift counts are taken modulo the width, division by
 * zero gives 0, INT_MIN / -1 wraps, float-to-integer conversion saturates.
 */

/** Value types. The order is that of `TYPE_NAMES`. */
export const I32 = 0;
export const I64 = 1;
export const F32 = 2;
export const F64 = 3;
export const V128 = 4;
export const NONE = 5;
export const TYPE_NAMES = ['i32', 'i64', 'f32', 'f64', 'v128', 'none'] as const;

/** How an operation is treated by passes and back ends. */
export const PURE = 0; // a value of its operands and nothing else
export const STATE = 1; // reads or writes the vCPU state block
export const MEMORY = 2; // guest memory: may fault
export const CALL = 3; // a helper
export const MARK = 4; // insn marker
export const SIDE_EXIT = 5; // may leave the block before its end
export const EXIT = 6; // ends the block
export const BULK = 7; // guest memory many bytes at once, or not at all: never faults

export interface OpInfo {
  readonly name: string;
  readonly index: number;
  readonly kind: number;
  readonly result: number;
  /** Types of the value operands, in words 1, 2, 3 of the record. */
  readonly operands: readonly number[];
  /** How many immediate words follow the value operands. */
  readonly immediates: number;
  /** The wasm instruction, when the operation is exactly one; lane operations append their lane. */
  readonly wasm: readonly number[] | null;
}

const TYPE_OF_LETTER: Record<string, number> = { i: I32, l: I64, f: F32, d: F64, v: V128, n: NONE };

/** "li>l" style signature: operands, then the result. */
type Row = readonly [signature: string, wasm: number | readonly number[] | null, immediates?: number];

const SIMD = 0xfd;
const simd = (opcode: number): readonly number[] => (opcode < 128 ? [SIMD, opcode] : [SIMD, (opcode & 127) | 128, opcode >> 7]);
/** The signatures stay literal types: the builder's methods are derived from them. */
const vv = (opcode: number) => ['vv>v', simd(opcode)] as const;
const v1 = (opcode: number) => ['v>v', simd(opcode)] as const;
const vshift = (opcode: number) => ['vi>v', simd(opcode)] as const;
const vtest = (opcode: number) => ['v>i', simd(opcode)] as const;

const SWIZZLE = 14;
const RELAXED_SWIZZLE = 0x100;
/**
 * The relaxed form is one host instruction, but not every browser has it. A module with the function
 * (local v128) => relaxed_swizzle(local, local) tells.
 */
const hasRelaxedSwizzle = WebAssembly.validate(
  Uint8Array.of(
    0,
    0x61,
    0x73,
    0x6d,
    1,
    0,
    0,
    0, // magic, version
    1,
    4,
    1,
    0x60,
    0,
    0, // type () => ()
    3,
    2,
    1,
    0, // one function
    10,
    14,
    1,
    12,
    1,
    1,
    0x7b,
    0x20,
    0,
    0x20,
    0,
    ...simd(RELAXED_SWIZZLE),
    0x1a,
    0x0b,
  ),
);

const pure = {
  // Constants: immediates are the value's 32-bit words, low word first.
  const32: ['>i', null, 1],
  const64: ['>l', null, 2],
  constv: ['>v', null, 4],

  add32: ['ii>i', 0x6a],
  sub32: ['ii>i', 0x6b],
  mul32: ['ii>i', 0x6c],
  divs32: ['ii>i', null],
  divu32: ['ii>i', null],
  rems32: ['ii>i', null],
  remu32: ['ii>i', null],
  and32: ['ii>i', 0x71],
  or32: ['ii>i', 0x72],
  xor32: ['ii>i', 0x73],
  shl32: ['ii>i', 0x74],
  sar32: ['ii>i', 0x75],
  shr32: ['ii>i', 0x76],
  rotl32: ['ii>i', 0x77],
  rotr32: ['ii>i', 0x78],
  clz32: ['i>i', 0x67],
  ctz32: ['i>i', 0x68],
  popcnt32: ['i>i', 0x69],
  eqz32: ['i>i', 0x45],
  eq32: ['ii>i', 0x46],
  ne32: ['ii>i', 0x47],
  lts32: ['ii>i', 0x48],
  ltu32: ['ii>i', 0x49],
  gts32: ['ii>i', 0x4a],
  gtu32: ['ii>i', 0x4b],
  les32: ['ii>i', 0x4c],
  leu32: ['ii>i', 0x4d],
  ges32: ['ii>i', 0x4e],
  geu32: ['ii>i', 0x4f],
  ext8s32: ['i>i', 0xc0],
  ext16s32: ['i>i', 0xc1],
  bswap32: ['i>i', null],
  select32: ['iii>i', null], // condition, when non-zero, when zero

  add64: ['ll>l', 0x7c],
  sub64: ['ll>l', 0x7d],
  mul64: ['ll>l', 0x7e],
  divs64: ['ll>l', null],
  divu64: ['ll>l', null],
  rems64: ['ll>l', null],
  remu64: ['ll>l', null],
  mulhs64: ['ll>l', null], // high half of the signed 128-bit product
  mulhu64: ['ll>l', null], // high half of the unsigned 128-bit product
  and64: ['ll>l', 0x83],
  or64: ['ll>l', 0x84],
  xor64: ['ll>l', 0x85],
  shl64: ['ll>l', 0x86],
  sar64: ['ll>l', 0x87],
  shr64: ['ll>l', 0x88],
  rotl64: ['ll>l', 0x89],
  rotr64: ['ll>l', 0x8a],
  clz64: ['l>l', 0x79],
  ctz64: ['l>l', 0x7a],
  popcnt64: ['l>l', 0x7b],
  eqz64: ['l>i', 0x50],
  eq64: ['ll>i', 0x51],
  ne64: ['ll>i', 0x52],
  lts64: ['ll>i', 0x53],
  ltu64: ['ll>i', 0x54],
  gts64: ['ll>i', 0x55],
  gtu64: ['ll>i', 0x56],
  les64: ['ll>i', 0x57],
  leu64: ['ll>i', 0x58],
  ges64: ['ll>i', 0x59],
  geu64: ['ll>i', 0x5a],
  ext8s64: ['l>l', 0xc2],
  ext16s64: ['l>l', 0xc3],
  ext32s64: ['l>l', 0xc4],
  bswap64: ['l>l', null],
  select64: ['ill>l', null],
  wrap: ['l>i', 0xa7], // low 32 bits
  extu: ['i>l', 0xad],
  exts: ['i>l', 0xac],

  addf32: ['ff>f', 0x92],
  subf32: ['ff>f', 0x93],
  mulf32: ['ff>f', 0x94],
  divf32: ['ff>f', 0x95],
  sqrtf32: ['f>f', 0x91],
  eqf32: ['ff>i', 0x5b],
  nef32: ['ff>i', 0x5c],
  ltf32: ['ff>i', 0x5d],
  gtf32: ['ff>i', 0x5e],
  lef32: ['ff>i', 0x5f],
  gef32: ['ff>i', 0x60],
  absf32: ['f>f', 0x8b],
  negf32: ['f>f', 0x8c],
  ceilf32: ['f>f', 0x8d],
  floorf32: ['f>f', 0x8e],
  truncf32: ['f>f', 0x8f],
  nearestf32: ['f>f', 0x90],
  selectf32: ['iff>f', null],

  addf64: ['dd>d', 0xa0],
  subf64: ['dd>d', 0xa1],
  mulf64: ['dd>d', 0xa2],
  divf64: ['dd>d', 0xa3],
  sqrtf64: ['d>d', 0x9f],
  eqf64: ['dd>i', 0x61],
  nef64: ['dd>i', 0x62],
  ltf64: ['dd>i', 0x63],
  gtf64: ['dd>i', 0x64],
  lef64: ['dd>i', 0x65],
  gef64: ['dd>i', 0x66],
  absf64: ['d>d', 0x99],
  negf64: ['d>d', 0x9a],
  ceilf64: ['d>d', 0x9b],
  floorf64: ['d>d', 0x9c],
  truncf64: ['d>d', 0x9d],
  nearestf64: ['d>d', 0x9e],
  selectf64: ['idd>d', null],

  f32tof64: ['f>d', 0xbb],
  f64tof32: ['d>f', 0xb6],
  s32tof32: ['i>f', 0xb2],
  u32tof32: ['i>f', 0xb3],
  s64tof32: ['l>f', 0xb4],
  u64tof32: ['l>f', 0xb5],
  s32tof64: ['i>d', 0xb7],
  u32tof64: ['i>d', 0xb8],
  s64tof64: ['l>d', 0xb9],
  u64tof64: ['l>d', 0xba],
  f32tos32: ['f>i', [0xfc, 0]],
  f32tou32: ['f>i', [0xfc, 1]],
  f64tos32: ['d>i', [0xfc, 2]],
  f64tou32: ['d>i', [0xfc, 3]],
  f32tos64: ['f>l', [0xfc, 4]],
  f32tou64: ['f>l', [0xfc, 5]],
  f64tos64: ['d>l', [0xfc, 6]],
  f64tou64: ['d>l', [0xfc, 7]],
  bitsf32: ['f>i', 0xbc], // the float's bits
  bitsf64: ['d>l', 0xbd],
  f32bits: ['i>f', 0xbe], // the float with these bits
  f64bits: ['l>d', 0xbf],

  vshuffle: ['vv>v', simd(13), 4], // 16 byte lane numbers (0-31) in 4 words, low byte first
  vswizzle: vv(SWIZZLE),
  /** Bytes of a by b's, which are 0 to 15, or have bit 7 set and give 0; what others give depends on the host. */
  vlookup: vv(hasRelaxedSwizzle ? RELAXED_SWIZZLE : SWIZZLE),
  splat8: ['i>v', simd(15)],
  splat16: ['i>v', simd(16)],
  splat32: ['i>v', simd(17)],
  splat64: ['l>v', simd(18)],
  splatf32: ['f>v', simd(19)],
  splatf64: ['d>v', simd(20)],
  lane8s: ['v>i', simd(21), 1],
  lane8u: ['v>i', simd(22), 1],
  setlane8: ['vi>v', simd(23), 1],
  lane16s: ['v>i', simd(24), 1],
  lane16u: ['v>i', simd(25), 1],
  setlane16: ['vi>v', simd(26), 1],
  lane32: ['v>i', simd(27), 1],
  setlane32: ['vi>v', simd(28), 1],
  lane64: ['v>l', simd(29), 1],
  setlane64: ['vl>v', simd(30), 1],
  lanef32: ['v>f', simd(31), 1],
  setlanef32: ['vf>v', simd(32), 1],
  lanef64: ['v>d', simd(33), 1],
  setlanef64: ['vd>v', simd(34), 1],

  eq8x16: vv(35),
  ne8x16: vv(36),
  lts8x16: vv(37),
  ltu8x16: vv(38),
  gts8x16: vv(39),
  gtu8x16: vv(40),
  les8x16: vv(41),
  leu8x16: vv(42),
  ges8x16: vv(43),
  geu8x16: vv(44),
  eq16x8: vv(45),
  ne16x8: vv(46),
  lts16x8: vv(47),
  ltu16x8: vv(48),
  gts16x8: vv(49),
  gtu16x8: vv(50),
  les16x8: vv(51),
  leu16x8: vv(52),
  ges16x8: vv(53),
  geu16x8: vv(54),
  eq32x4: vv(55),
  ne32x4: vv(56),
  lts32x4: vv(57),
  ltu32x4: vv(58),
  gts32x4: vv(59),
  gtu32x4: vv(60),
  les32x4: vv(61),
  leu32x4: vv(62),
  ges32x4: vv(63),
  geu32x4: vv(64),
  eqf32x4: vv(65),
  nef32x4: vv(66),
  ltf32x4: vv(67),
  gtf32x4: vv(68),
  lef32x4: vv(69),
  gef32x4: vv(70),
  eqf64x2: vv(71),
  nef64x2: vv(72),
  ltf64x2: vv(73),
  gtf64x2: vv(74),
  lef64x2: vv(75),
  gef64x2: vv(76),
  notv: v1(77),
  andv: vv(78),
  andnotv: vv(79) /* a & ~b */,
  orv: vv(80),
  xorv: vv(81),
  bitselect: ['vvv>v', simd(82)], // bits of a where c is 1, of b where c is 0
  anytrue: vtest(83),
  f64x2tof32x4: v1(94),
  f32x4tof64x2: v1(95),
  abs8x16: v1(96),
  neg8x16: v1(97),
  popcnt8x16: v1(98),
  alltrue8x16: vtest(99),
  bitmask8x16: vtest(100),
  narrows16x8: vv(101),
  narrowu16x8: vv(102),
  ceilf32x4: v1(103),
  floorf32x4: v1(104),
  truncf32x4: v1(105),
  nearestf32x4: v1(106),
  shl8x16: vshift(107),
  sar8x16: vshift(108),
  shr8x16: vshift(109),
  add8x16: vv(110),
  addsats8x16: vv(111),
  addsatu8x16: vv(112),
  sub8x16: vv(113),
  subsats8x16: vv(114),
  subsatu8x16: vv(115),
  ceilf64x2: v1(116),
  floorf64x2: v1(117),
  mins8x16: vv(118),
  minu8x16: vv(119),
  maxs8x16: vv(120),
  maxu8x16: vv(121),
  truncf64x2: v1(122),
  avgu8x16: vv(123),
  extadds8x16: v1(124),
  extaddu8x16: v1(125),
  extadds16x8: v1(126),
  extaddu16x8: v1(127),
  abs16x8: v1(128),
  neg16x8: v1(129),
  q15mulrs16x8: vv(130),
  alltrue16x8: vtest(131),
  bitmask16x8: vtest(132),
  narrows32x4: vv(133),
  narrowu32x4: vv(134),
  extlows8x16: v1(135),
  exthighs8x16: v1(136),
  extlowu8x16: v1(137),
  exthighu8x16: v1(138),
  shl16x8: vshift(139),
  sar16x8: vshift(140),
  shr16x8: vshift(141),
  add16x8: vv(142),
  addsats16x8: vv(143),
  addsatu16x8: vv(144),
  sub16x8: vv(145),
  subsats16x8: vv(146),
  subsatu16x8: vv(147),
  nearestf64x2: v1(148),
  mul16x8: vv(149),
  mins16x8: vv(150),
  minu16x8: vv(151),
  maxs16x8: vv(152),
  maxu16x8: vv(153),
  avgu16x8: vv(155),
  mullows8x16: vv(156),
  mulhighs8x16: vv(157),
  mullowu8x16: vv(158),
  mulhighu8x16: vv(159),
  abs32x4: v1(160),
  neg32x4: v1(161),
  alltrue32x4: vtest(163),
  bitmask32x4: vtest(164),
  extlows16x8: v1(167),
  exthighs16x8: v1(168),
  extlowu16x8: v1(169),
  exthighu16x8: v1(170),
  shl32x4: vshift(171),
  sar32x4: vshift(172),
  shr32x4: vshift(173),
  add32x4: vv(174),
  sub32x4: vv(177),
  mul32x4: vv(181),
  mins32x4: vv(182),
  minu32x4: vv(183),
  maxs32x4: vv(184),
  maxu32x4: vv(185),
  dots16x8: vv(186),
  mullows16x8: vv(188),
  mulhighs16x8: vv(189),
  mullowu16x8: vv(190),
  mulhighu16x8: vv(191),
  abs64x2: v1(192),
  neg64x2: v1(193),
  alltrue64x2: vtest(195),
  bitmask64x2: vtest(196),
  extlows32x4: v1(199),
  exthighs32x4: v1(200),
  extlowu32x4: v1(201),
  exthighu32x4: v1(202),
  shl64x2: vshift(203),
  sar64x2: vshift(204),
  shr64x2: vshift(205),
  add64x2: vv(206),
  sub64x2: vv(209),
  mul64x2: vv(213),
  eq64x2: vv(214),
  ne64x2: vv(215),
  lts64x2: vv(216),
  gts64x2: vv(217),
  les64x2: vv(218),
  ges64x2: vv(219),
  mullows32x4: vv(220),
  mulhighs32x4: vv(221),
  mullowu32x4: vv(222),
  mulhighu32x4: vv(223),
  absf32x4: v1(224),
  negf32x4: v1(225),
  sqrtf32x4: v1(227),
  addf32x4: vv(228),
  subf32x4: vv(229),
  mulf32x4: vv(230),
  divf32x4: vv(231),
  minf32x4: vv(232),
  maxf32x4: vv(233),
  pminf32x4: vv(234) /* b < a ? b : a */,
  pmaxf32x4: vv(235) /* a < b ? b : a */,
  absf64x2: v1(236),
  negf64x2: v1(237),
  sqrtf64x2: v1(239),
  addf64x2: vv(240),
  subf64x2: vv(241),
  mulf64x2: vv(242),
  divf64x2: vv(243),
  minf64x2: vv(244),
  maxf64x2: vv(245),
  pminf64x2: vv(246),
  pmaxf64x2: vv(247),
  f32x4tos32x4: v1(248),
  f32x4tou32x4: v1(249),
  s32x4tof32x4: v1(250),
  u32x4tof32x4: v1(251),
  f64x2tos32x4: v1(252),
  f64x2tou32x4: v1(253),
  s32x4tof64x2: v1(254),
  u32x4tof64x2: v1(255),
  selectv: ['ivv>v', null],
} as const satisfies Record<string, Row>;

/** Words a state access takes after its operands: the byte offset in the vCPU's state block. */
const state = {
  // The dynamic operand is added to the constant byte offset.
  lds8: ['i>i', 0x2d, 1],
  lds16: ['i>i', 0x2f, 1],
  lds32: ['i>i', 0x28, 1],
  lds64: ['i>l', 0x29, 1],
  ldsf64: ['i>d', 0x2b, 1],
  ldsv: ['i>v', simd(0), 1],
  sts8: ['ii>n', 0x3a, 1],
  sts16: ['ii>n', 0x3b, 1],
  sts32: ['ii>n', 0x36, 1],
  sts64: ['il>n', 0x37, 1],
  stsf64: ['id>n', 0x39, 1],
  stsv: ['iv>n', simd(11), 1],
  // The instruction context a block was entered with (see `insn`).
  getctx: ['>i', null],
  // The block's base pc: instruction offsets count from it.
  pcbase: ['>l', null],
} as const satisfies Record<string, Row>;

/** Globals: the typed guest registers; the immediate is the global's number. */
const globals = {
  getg32: ['>i', null, 1],
  getg64: ['>l', null, 1],
  getgf64: ['>d', null, 1],
  getgv: ['>v', null, 1],
  setg32: ['i>n', null, 1],
  setg64: ['l>n', null, 1],
  setgf64: ['d>n', null, 1],
  setgv: ['v>n', null, 1],
} as const satisfies Record<string, Row>;

/**
 * Guest memory by guest virtual address. Narrow loads extend to the result's
 * width. A load ending in `w` demands write permission as well: the first half of
 * a read-modify-write, so that its fault reports a write.
 */
const memory = {
  ld8u: ['l>i', 0x2d],
  ld8s: ['l>i', 0x2c],
  ld16u: ['l>i', 0x2f],
  ld16s: ['l>i', 0x2e],
  ld32: ['l>i', 0x28],
  ld64: ['l>l', 0x29],
  ldv: ['l>v', simd(0)],
  ldf32: ['l>f', 0x2a],
  ldf64: ['l>d', 0x2b],
  ld8w: ['l>i', 0x2d],
  ld16w: ['l>i', 0x2f],
  ld32w: ['l>i', 0x28],
  ld64w: ['l>l', 0x29],
  st8: ['li>n', 0x3a],
  st16: ['li>n', 0x3b],
  st32: ['li>n', 0x36],
  st64: ['ll>n', 0x37],
  stv: ['lv>n', simd(11)],
  stf32: ['lf>n', 0x38],
  stf64: ['ld>n', 0x39],
} as const satisfies Record<string, Row>;

/**
 * Bulk access within one page: 1 when done, 0 when it must be done another way (pages that the TLB
 * does not hold, ranges that cross a page's end or overlap forwards, more than a page).
 */
const bulk = {
  bulkcopy: ['lll>i', null], // to, from, bytes
  bulkfill: ['lli>i', null], // to, bytes, the byte
} as const satisfies Record<string, Row>;

/** Words: number of the helper, then up to four operands (see `Builder.call`). */
const calls = {
  call: ['>n', null],
  calli: ['>i', null],
  calll: ['>l', null],
  callv: ['>v', null],
  calld: ['>d', null],
} as const satisfies Record<string, Row>;

const marks = {
  // Start of a guest instruction: byte offset of its pc from the block's base pc, and its context.
  insn: ['>n', null, 2],
} as const satisfies Record<string, Row>;

const sideExits = {
  // When the operand is non-zero: leave with the pc at the current instruction. Reason, argument.
  leaveif: ['i>n', null, 2],
} as const satisfies Record<string, Row>;

const exits = {
  goto: ['>n', null, 2], // byte offset of the target pc from the block's base pc; context
  condgoto: ['i>n', null, 3], // offset when non-zero, offset when zero; context
  jump: ['l>n', null, 1], // computed pc; context
  leave: ['>n', null, 4], // reason, argument, byte offset of the pc to report, context
} as const satisfies Record<string, Row>;

const groups = [
  [PURE, pure],
  [STATE, state],
  [STATE, globals],
  [MEMORY, memory],
  [BULK, bulk],
  [CALL, calls],
  [MARK, marks],
  [SIDE_EXIT, sideExits],
  [EXIT, exits],
] as const;

export type PureName = keyof typeof pure;
export type StateName = keyof typeof state;
export type MemoryName = keyof typeof memory;
export type OpName =
  | PureName
  | StateName
  | keyof typeof globals
  | MemoryName
  | keyof typeof bulk
  | keyof typeof calls
  | keyof typeof marks
  | keyof typeof sideExits
  | keyof typeof exits;

/** The table rows by group, for types derived from signatures. */
export type PureRows = typeof pure;
export type MemoryRows = typeof memory & typeof bulk;

function buildTable(): OpInfo[] {
  const table: OpInfo[] = [];
  for (const [kind, group] of groups) {
    for (const [name, row] of Object.entries(group) as [string, Row][]) {
      const [signature, wasm, immediates = 0] = row;
      const [operands, result] = signature.split('>') as [string, string];
      table.push({
        name,
        index: table.length,
        kind,
        result: TYPE_OF_LETTER[result]!,
        operands: [...operands].map((letter) => TYPE_OF_LETTER[letter]!),
        immediates,
        wasm: wasm === null ? null : typeof wasm === 'number' ? [wasm] : wasm,
      });
    }
  }
  return table;
}

export const OPS: readonly OpInfo[] = buildTable();

/** Operation numbers by name. */
export const Op = Object.fromEntries(OPS.map((op) => [op.name, op.index])) as Record<OpName, number>;
// V8 keeps an object built from many entries as a hash table; being a prototype makes it a fast one.
Object.create(Op);

/** Flat copies for loops that run once per operation. */
export const OP_KIND = Uint8Array.from(OPS, (op) => op.kind);
export const OP_RESULT = Uint8Array.from(OPS, (op) => op.result);
export const OP_OPERANDS = Uint8Array.from(OPS, (op) => op.operands.length);
/** Comparisons of integers. */
export const IS_COMPARISON = Uint8Array.from(OPS, (op) =>
  /^(eq|ne|lt[su]|gt[su]|le[su]|ge[su]|eqz)(32|64)$/.test(op.name) ? 1 : 0,
);
/** Sums and differences of integers. */
export const IS_SUM = Uint8Array.from(OPS, (op) => (/^(add|sub)(32|64)$/.test(op.name) ? 1 : 0));
