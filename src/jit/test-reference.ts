/** What the integer operations mean, in BigInts: written apart from the operation table's wasm. */

type Evaluate = (a: bigint, b: bigint, c: bigint) => bigint;

const truth = (value: boolean): bigint => (value ? 1n : 0n);
const signed = (bits: number, a: bigint): bigint => BigInt.asIntN(bits, a);
const unsigned = (bits: number, a: bigint): bigint => BigInt.asUintN(bits, a);

function countLeading(bits: number, a: bigint): bigint {
  let count = 0n;
  for (let i = bits - 1; i >= 0 && !((a >> BigInt(i)) & 1n); i--) count++;
  return count;
}

function countTrailing(bits: number, a: bigint): bigint {
  let count = 0n;
  for (let i = 0; i < bits && !((a >> BigInt(i)) & 1n); i++) count++;
  return count;
}

function population(a: bigint): bigint {
  let count = 0n;
  for (; a; a >>= 1n) count += a & 1n;
  return count;
}

function swapBytes(bits: number, a: bigint): bigint {
  let result = 0n;
  for (let i = 0; i < bits; i += 8) result = (result << 8n) | ((a >> BigInt(i)) & 255n);
  return result;
}

const divide = (a: bigint, b: bigint): bigint => (b === 0n ? 0n : a / b);
const remainder = (a: bigint, b: bigint): bigint => (b === 0n ? 0n : a % b);
const clamp = (value: bigint, low: bigint, high: bigint): bigint => (value < low ? low : value > high ? high : value);
const saturate = (bits: number, isSigned: boolean, value: bigint): bigint => {
  const half = 1n << BigInt(bits - 1);
  return isSigned ? clamp(value, -half, half - 1n) : clamp(value, 0n, 2n * half - 1n);
};

/** Operations on one element of so many bits; operands come unsigned. */
function elementOps(bits: number): Record<string, Evaluate> {
  const s = (a: bigint): bigint => signed(bits, a);
  const count = (b: bigint): bigint => b & BigInt(bits - 1);
  const mask = (value: boolean): boolean => value;
  const compare = (name: string, test: (a: bigint, b: bigint) => boolean): Record<string, Evaluate> => ({
    [`${name}s`]: (a, b) => truth(mask(test(s(a), s(b)))),
    [`${name}u`]: (a, b) => truth(mask(test(a, b))),
  });
  return {
    add: (a, b) => a + b,
    sub: (a, b) => a - b,
    mul: (a, b) => a * b,
    divs: (a, b) => divide(s(a), s(b)),
    divu: divide,
    rems: (a, b) => remainder(s(a), s(b)),
    remu: remainder,
    mulhs: (a, b) => (s(a) * s(b)) >> BigInt(bits),
    mulhu: (a, b) => (a * b) >> BigInt(bits),
    and: (a, b) => a & b,
    or: (a, b) => a | b,
    xor: (a, b) => a ^ b,
    shl: (a, b) => a << count(b),
    sar: (a, b) => s(a) >> count(b),
    shr: (a, b) => a >> count(b),
    rotl: (a, b) => (a << count(b)) | (a >> (BigInt(bits) - count(b))),
    rotr: (a, b) => (a >> count(b)) | (a << (BigInt(bits) - count(b))),
    clz: (a) => countLeading(bits, a),
    ctz: (a) => countTrailing(bits, a),
    popcnt: population,
    eqz: (a) => truth(a === 0n),
    eq: (a, b) => truth(a === b),
    ne: (a, b) => truth(a !== b),
    ...compare('lt', (a, b) => a < b),
    ...compare('gt', (a, b) => a > b),
    ...compare('le', (a, b) => a <= b),
    ...compare('ge', (a, b) => a >= b),
    ext8s: (a) => signed(8, a),
    ext16s: (a) => signed(16, a),
    ext32s: (a) => signed(32, a),
    bswap: (a) => swapBytes(bits, a),
    select: (a, b, c) => (unsigned(32, a) ? b : c),
    abs: (a) => (s(a) < 0n ? -s(a) : a),
    neg: (a) => -a,
    mins: (a, b) => (s(a) < s(b) ? a : b),
    minu: (a, b) => (a < b ? a : b),
    maxs: (a, b) => (s(a) > s(b) ? a : b),
    maxu: (a, b) => (a > b ? a : b),
    avgu: (a, b) => (a + b + 1n) >> 1n,
    addsats: (a, b) => saturate(bits, true, s(a) + s(b)),
    addsatu: (a, b) => saturate(bits, false, a + b),
    subsats: (a, b) => saturate(bits, true, s(a) - s(b)),
    subsatu: (a, b) => saturate(bits, false, a - b),
    q15mulrs: (a, b) => saturate(bits, true, (s(a) * s(b) + 0x4000n) >> 15n),
  };
}

const OPS_OF = new Map([8, 16, 32, 64].map((bits) => [bits, elementOps(bits)]));

export function lanes(bits: number, value: bigint): bigint[] {
  return Array.from({ length: 128 / bits }, (_, i) => unsigned(bits, value >> BigInt(i * bits)));
}

function joinLanes(bits: number, list: readonly bigint[]): bigint {
  return list.reduce((sum, lane, i) => sum | (unsigned(bits, lane) << BigInt(i * bits)), 0n);
}

type VectorEvaluate = (a: bigint, b: bigint, c: bigint, immediates: readonly number[]) => bigint;

const ALL = (1n << 128n) - 1n;
const wholeVector: Partial<Record<string, VectorEvaluate>> = {
  notv: (a) => ~a & ALL,
  andv: (a, b) => a & b,
  andnotv: (a, b) => a & ~b & ALL,
  orv: (a, b) => a | b,
  xorv: (a, b) => a ^ b,
  bitselect: (a, b, c) => (a & c) | (b & ~c & ALL),
  anytrue: (a) => truth(a !== 0n),
  selectv: (a, b, c) => (unsigned(32, a) ? b : c),
  vswizzle: (a, b) =>
    joinLanes(
      8,
      lanes(8, b).map((i) => (i < 16n ? lanes(8, a)[Number(i)]! : 0n)),
    ),
  vlookup: (a, b) =>
    joinLanes(
      8,
      lanes(8, b).map((i) => (i < 16n ? lanes(8, a)[Number(i)]! : 0n)),
    ),
  vshuffle: (a, b, _c, words) => {
    const all = [...lanes(8, a), ...lanes(8, b)];
    const mask = words.flatMap((word) => [0, 8, 16, 24].map((shift) => (word >>> shift) & 31));
    return joinLanes(
      8,
      mask.map((lane) => all[lane]!),
    );
  },
  wrap: (a) => unsigned(32, a),
  extu: (a) => a,
  exts: (a) => signed(32, a),
  dots16x8: (a, b) => {
    const [x, y] = [a, b].map((value) => lanes(16, value).map((lane) => signed(16, lane))) as [bigint[], bigint[]];
    return joinLanes(
      32,
      [0, 2, 4, 6].map((i) => x[i]! * y[i]! + x[i + 1]! * y[i + 1]!),
    );
  },
};

/** [pattern of names, what they mean]: operations between lanes of different widths, and of single lanes. */
const families: [RegExp, (match: RegExpExecArray) => VectorEvaluate][] = [
  [
    /^splat(8|16|32|64)$/,
    ([, bits]) =>
      (a) =>
        joinLanes(+bits!, Array<bigint>(128 / +bits!).fill(a)),
  ],
  [
    /^lane(8|16|32|64)([su]?)$/,
    ([, bits, sign]) =>
      (a, _b, _c, [lane]) => {
        const value = lanes(+bits!, a)[lane!]!;
        return sign === 's' ? signed(+bits!, value) : value;
      },
  ],
  [
    /^setlane(8|16|32|64)$/,
    ([, bits]) =>
      (a, b, _c, [lane]) =>
        joinLanes(
          +bits!,
          lanes(+bits!, a).map((old, i) => (i === lane ? b : old)),
        ),
  ],
  [
    /^alltrue(\d+)x/,
    ([, bits]) =>
      (a) =>
        truth(lanes(+bits!, a).every((lane) => lane !== 0n)),
  ],
  [
    /^bitmask(\d+)x/,
    ([, bits]) =>
      (a) =>
        lanes(+bits!, a).reduce((mask, lane, i) => mask | ((lane >> BigInt(+bits! - 1)) << BigInt(i)), 0n),
  ],
  [
    /^narrow([su])(16|32)x/,
    ([, sign, bits]) =>
      (a, b) =>
        joinLanes(
          +bits! / 2,
          [...lanes(+bits!, a), ...lanes(+bits!, b)].map((lane) => saturate(+bits! / 2, sign === 's', signed(+bits!, lane))),
        ),
  ],
  [
    /^ext(low|high)([su])(\d+)x/,
    ([, half, sign, bits]) =>
      (a) =>
        joinLanes(+bits! * 2, halfOf(half!, sign!, +bits!, a)),
  ],
  [
    /^mul(low|high)([su])(\d+)x/,
    ([, half, sign, bits]) =>
      (a, b) => {
        const other = halfOf(half!, sign!, +bits!, b);
        return joinLanes(
          +bits! * 2,
          halfOf(half!, sign!, +bits!, a).map((lane, i) => lane * other[i]!),
        );
      },
  ],
  [
    /^extadd([su])(\d+)x/,
    ([, sign, bits]) =>
      (a) => {
        const all = lanes(+bits!, a).map((lane) => (sign === 's' ? signed(+bits!, lane) : lane));
        return joinLanes(
          +bits! * 2,
          all.filter((_, i) => i % 2 === 0).map((lane, i) => lane + all[2 * i + 1]!),
        );
      },
  ],
  [
    /^(shl|sar|shr)(8|16|32|64)x/,
    ([, name, bits]) =>
      (a, b) =>
        joinLanes(
          +bits!,
          lanes(+bits!, a).map((lane) => OPS_OF.get(+bits!)![name!]!(lane, b, 0n)),
        ),
  ],
  [
    /^(eq|ne|[lg][te][su])(8|16|32|64)x/,
    ([, name, bits]) =>
      (a, b) => {
        const right = lanes(+bits!, b);
        return joinLanes(
          +bits!,
          lanes(+bits!, a).map((lane, i) => -OPS_OF.get(+bits!)![name!]!(lane, right[i]!, 0n)),
        );
      },
  ],
  [
    /^([a-z]+|q15mulrs)(8|16|32|64)x/,
    ([, name, bits]) =>
      (a, b) => {
        const right = lanes(+bits!, b);
        return joinLanes(
          +bits!,
          lanes(+bits!, a).map((lane, i) => OPS_OF.get(+bits!)![name!]!(lane, right[i]!, 0n)),
        );
      },
  ],
  [/^([a-z]+\d*[su]?)(32|64)$/, ([, name, bits]) => OPS_OF.get(+bits!)![name!]!],
];

function halfOf(half: string, sign: string, bits: number, value: bigint): bigint[] {
  const all = lanes(bits, value).map((lane) => (sign === 's' ? signed(bits, lane) : lane));
  return half === 'low' ? all.slice(0, all.length / 2) : all.slice(all.length / 2);
}

/** What an integer operation gives (unsigned, of the result's width), or null when it is none. */
export function referenceOf(name: string, resultBits: number): VectorEvaluate | null {
  if (/f\d|bits/.test(name)) return null;
  let evaluate: VectorEvaluate | undefined = wholeVector[name];
  for (const [pattern, make] of families) {
    const match = evaluate ? null : pattern.exec(name);
    if (match) evaluate = make(match);
  }
  if (!evaluate) throw new Error(`no reference for ${name}`);
  const found = evaluate;
  return (a, b, c, immediates) => BigInt.asUintN(resultBits, found(a, b, c, immediates));
}
