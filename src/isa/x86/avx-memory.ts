/**
 * AVX and AVX2 access to single lanes of memory: VMASKMOV, VPMASKMOV and the gathers.
 *
 * Only lanes whose mask bit is set may touch memory. IR has no conditional access, so the others
 * repeat the access of one that is set; when none is, the system code goes on (LEAVE_MASK_EMPTY).
 */
import type { Builder, Value } from '../../ir/builder.ts';
import { NO_REGISTER } from './decode.ts';
import { AVX, AVX2 } from './avx.ts';
import { LEAVE_MASK_EMPTY, LEAVE_SKIP } from './leave.ts';
import { vector, zero } from './sse-common.ts';
import { row } from './tables.ts';
import type { Row, Translate } from './tables.ts';
import type { X86Translator } from './translator.ts';

type Bytes = 4 | 8;

/** A whole register of 16 or 32 bytes: one or two vectors. */
type Whole = readonly Value[];

const readWhole = (t: X86Translator, n: number, long: boolean): Whole => (long ? t.readYmm(n) : [t.readXmm(n)]);

function writeWhole(t: X86Translator, n: number, parts: Whole): void {
  t.writeYmm(n, parts[0]!, parts[1] ?? zero(t.b));
}

/** A bit for each lane: its top bit. */
function maskBits(b: Builder, mask: Whole, bytes: Bytes, lanes: number): Value {
  const one = (v: Value): Value => (bytes === 4 ? b.bitmask32x4(v) : b.bitmask64x2(v));
  const low = one(mask[0]!);
  const all = mask.length === 1 ? low : b.or32(low, b.shl32(one(mask[1]!), b.i32(16 / bytes)));
  return lanes < (16 / bytes) * mask.length ? b.and32(all, b.i32((1 << lanes) - 1)) : all;
}

const isSet = (b: Builder, bits: Value, lane: number): Value => b.and32(bits, b.i32(1 << lane));

const load = (b: Builder, bytes: Bytes, address: Value): Value => (bytes === 8 ? b.ld64(address) : b.ld32(address));

/** Lane `lane` of a whole register. */
function laneOf(b: Builder, parts: Whole, bytes: Bytes, lane: number): Value {
  const perPart = 16 / bytes;
  const part = parts[Math.floor(lane / perPart)]!;
  return bytes === 8 ? b.lane64(part, lane % perPart) : b.lane32(part, lane % perPart);
}

function replaceLane(b: Builder, parts: Value[], bytes: Bytes, lane: number, v: Value): void {
  const perPart = 16 / bytes;
  const at = Math.floor(lane / perPart);
  parts[at] = bytes === 8 ? b.setlane64(parts[at]!, v, lane % perPart) : b.setlane32(parts[at]!, v, lane % perPart);
}

/** All ones in the lanes whose top bit is set. */
const spread = (b: Builder, mask: Value, bytes: Bytes): Value =>
  bytes === 8 ? b.sar64x2(mask, b.i32(63)) : b.sar32x4(mask, b.i32(31));

/** Addresses of all lanes; those of lanes that are off are that of the first lane that is on. */
function laneAddresses(t: X86Translator, bits: Value, bytes: Bytes, lanes: number): Value[] {
  const { b } = t;
  const start = t.address(lanes * bytes, false);
  const size = b.i32(Math.log2(bytes));
  const first = b.add64(start, b.extu(b.shl32(b.ctz32(bits), size)));
  return Array.from({ length: lanes }, (_, i) => b.select64(isSet(b, bits, i), b.add64(start, b.i64(i * bytes)), first));
}

const UPPER = 1 << 16;
const UPPER_SINGLES = 1 << 17;

/** @param other a register of which the parts UPPER, UPPER_SINGLES become zero */
const leaveEmpty = (t: X86Translator, bits: Value, cleared: number, other = 0, parts = 0): void => {
  const extra = (cleared << 8) | (other << 12) | parts;
  t.b.leaveIf(t.b.eqz32(bits), LEAVE_MASK_EMPTY, t.leaveArgument(extra));
};

const maskedLoad = (bytes: Bytes, long: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const mask = readWhole(t, t.vexV, long);
    const lanes = (long ? 32 : 16) / bytes;
    const bits = maskBits(b, mask, bytes, lanes);
    leaveEmpty(t, bits, t.reg);
    const parts: Value[] = mask.map(() => zero(b));
    laneAddresses(t, bits, bytes, lanes).forEach((address, i) => replaceLane(b, parts, bytes, i, load(b, bytes, address)));
    writeWhole(
      t,
      t.reg,
      parts.map((part, i) => b.andv(part, spread(b, mask[i]!, bytes))),
    );
  });

/** The first and the last lane are probed: then all are there, or nothing is written. */
const maskedStore = (bytes: Bytes, long: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const mask = readWhole(t, t.vexV, long);
    const lanes = (long ? 32 : 16) / bytes;
    const bits = maskBits(b, mask, bytes, lanes);
    b.leaveIf(b.eqz32(bits), LEAVE_SKIP, t.leaveArgument(0));
    const start = t.address(lanes * bytes, true);
    const addresses = laneAddresses(t, bits, bytes, lanes);
    const last = b.sub32(b.i32(31), b.clz32(bits));
    for (const lane of [b.ctz32(bits), last]) {
      const distance = b.extu(b.shl32(lane, b.i32(Math.log2(bytes))));
      t.loadForWrite(bytes, b.add64(start, distance));
    }
    const source = readWhole(t, t.reg, long);
    const values = addresses.map((_, i) => laneOf(b, source, bytes, i));
    // What the first lane that is on stores.
    let repeated = values.at(-1)!;
    for (let i = lanes - 2; i >= 0; i--) repeated = t.select(bytes, isSet(b, bits, i), values[i]!, repeated);
    addresses.forEach((address, i) => t.store(bytes, address, t.select(bytes, isSet(b, bits, i), values[i]!, repeated)));
  });

function maskedRows(opcodes: [string, string], name: string, w: 0 | 1, bytes: Bytes, options: typeof AVX): Row[] {
  return [0, 1].flatMap((l) => {
    const size = l ? 'y' : 'o';
    const encoding = (opcode: string): string => `VEX.L${l}.W${w} 66 0F38 ${opcode} /r mem`;
    return [
      row(encoding(opcodes[0]), name, `V${size},H${size},M${size}`, maskedLoad(bytes, l === 1), options),
      row(encoding(opcodes[1]), name, `M${size},H${size},V${size}`, maskedStore(bytes, l === 1), options),
    ];
  });
}

// --- Gathers. ---

/** Linear addresses of the elements. */
function gatherAddresses(t: X86Translator, index: Whole, indexBytes: Bytes, bytes: Bytes, lanes: number): Value[] {
  const { b, addrSize } = t;
  // The index register is a vector: what is left is base and displacement.
  t.index = NO_REGISTER;
  const scale = t.scale;
  return Array.from({ length: lanes }, (_, i) => {
    const raw = laneOf(b, index, indexBytes, i);
    const offset =
      addrSize === 8
        ? b.shl64(indexBytes === 8 ? raw : b.exts(raw), b.i64(scale))
        : b.shl32(indexBytes === 8 ? b.wrap(raw) : raw, b.i32(scale));
    return t.linear(t.segment, t.effectiveOffset(offset), bytes, false);
  });
}

/**
 * When a lane faults nothing is written, not even lanes before it (the SDM wants those completed):
 * the instruction starts all over, with the same result.
 */
const gather = (indexBytes: Bytes, bytes: Bytes, long: boolean): Translate =>
  vector((t) => {
    const { b } = t;
    const indexRegister = t.index;
    const maskRegister = t.vexV;
    if (t.reg === indexRegister || t.reg === maskRegister || indexRegister === maskRegister) return t.undefined();
    const lanes = (long ? 32 : 16) / Math.max(indexBytes, bytes);
    const mask = readWhole(t, maskRegister, lanes * bytes > 16);
    const old = readWhole(t, t.reg, lanes * bytes > 16);
    const index = readWhole(t, indexRegister, lanes * indexBytes > 16);
    const bits = maskBits(b, mask, bytes, lanes);
    leaveEmpty(t, bits, maskRegister, t.reg, (lanes * bytes > 16 ? 0 : UPPER) | (lanes * bytes === 8 ? UPPER_SINGLES : 0));
    const addresses = gatherAddresses(t, index, indexBytes, bytes, lanes);
    let first = addresses.at(-1)!;
    for (let i = lanes - 2; i >= 0; i--) first = b.select64(isSet(b, bits, i), addresses[i]!, first);
    const parts = old.slice();
    addresses.forEach((address, i) =>
      replaceLane(b, parts, bytes, i, load(b, bytes, b.select64(isSet(b, bits, i), address, first))),
    );
    const merged = parts.map((part, i) => b.bitselect(part, old[i]!, spread(b, mask[i]!, bytes)));
    // Two singles: what lies above them becomes zero.
    if (lanes * bytes === 8) merged[0] = b.setlane64(zero(b), b.lane64(merged[0]!, 0), 0);
    writeWhole(t, t.reg, merged);
    writeWhole(t, maskRegister, [zero(b)]);
  });

function gatherRows(opcode: string, name: string, indexBytes: Bytes, singles: string, doubles: string): Row[] {
  return (
    [
      [0, 4, singles],
      [1, 8, doubles],
    ] as const
  ).flatMap(([w, bytes, suffix]) =>
    [0, 1].map((l) => {
      const long = l === 1;
      const lanes = (long ? 32 : 16) / Math.max(indexBytes, bytes);
      const size = lanes * bytes > 16 ? 'y' : 'o';
      return row(
        `VEX.L${l}.W${w} 66 0F38 ${opcode} /r mem`,
        `${name}${suffix}`,
        `V${size},M,H${size}`,
        gather(indexBytes, bytes, long),
        { ...AVX2, vsib: true },
      );
    }),
  );
}

export const avxMemory = (): readonly Row[] => [
  ...maskedRows(['2C', '2E'], 'VMASKMOVPS', 0, 4, AVX),
  ...maskedRows(['2D', '2F'], 'VMASKMOVPD', 0, 8, AVX),
  ...maskedRows(['8C', '8E'], 'VPMASKMOVD', 0, 4, AVX2),
  ...maskedRows(['8C', '8E'], 'VPMASKMOVQ', 1, 8, AVX2),
  ...gatherRows('90', 'VPGATHERD', 4, 'D', 'Q'),
  ...gatherRows('91', 'VPGATHERQ', 8, 'D', 'Q'),
  ...gatherRows('92', 'VGATHERDP', 4, 'S', 'D'),
  ...gatherRows('93', 'VGATHERQP', 8, 'S', 'D'),
];
