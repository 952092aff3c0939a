/**
 * The guest that both accelerators run: memory, tables, and states to begin in. Linear and physical addresses are the same.
 *
 *     0x0000_0000  interrupt table of real mode      0x2000_0000  code, a page       (addresses as in test/native)
 *     0x0000_1000  GDT                               0x2001_0000  data, three pages
 *     0x0000_2000  IDT                               0x2001_3000  data that page tables make read-only
 *     0x0000_3000  TSS                               0x2001_4000  memory that page tables leave out
 *     0x0000_4000  handlers, four bytes each
 *     0x0000_5000  LDT
 *     0x0000_7000  stack of ring 0, downwards
 *     0x0000_8000  code and data of 16-bit modes
 *     0x0001_0000  page tables
 */
import type { DeviceState, StateValue } from '../../src/machine/interfaces.ts';
import { GPR_NAMES, SEG_NULL } from '../../src/isa/x86/state.ts';
import { powerOnState } from '../../src/isa/x86/system/power-on.ts';
import type { Random } from '../native/generate.ts';
import { CODE_BASE, CODE_START, DATA_BASE, DATA_SIZE, READ_ONLY, WINDOW } from '../native/native.ts';

export const LOW_SIZE = 0x2_0000;
export const HIGH_BASE = CODE_BASE;
export const HIGH_SIZE = 0x2_0000;
/** All of the memory, one area after the other. */
export const MEMORY_SIZE = LOW_SIZE + HIGH_SIZE;
/** Whoever writes there has come to a handler. */
export const END_PORT = 0x42;
/** The kernel's cases end by themselves (out, and again), a program's by an exception (ud2). */
const ENDING = { kernel: [0xe6, END_PORT, 0xeb, 0xfc], user: [0x0f, 0x0b] };

const GDT = 0x1000;
const IDT = 0x2000;
const TSS = 0x3000;
const HANDLERS = 0x4000;
const LDT = 0x5000;
const STACK0 = 0x7000;
/** Of 16-bit modes: code, and the segment that it lies in. */
const CODE16_BASE = 0x8000;
const CODE16 = 0x100;
export const TABLES = 0x1_0000;

export const MODES = [
  'real16',
  'prot16',
  'prot32',
  'paged32',
  'pae32',
  'user32',
  'v8086',
  'long64',
  'compat32',
  'user64',
] as const;
export type Mode = (typeof MODES)[number];

/** Selectors that sequences may name, good ones and others. */
export const SELECTORS = [
  0, 0x08, 0x10, 0x18, 0x23, 0x2b, 0x33, 0x38, 0x40, 0x60, 0x68, 0x70, 0x78, 0x80, 0x0c, 0x14, 0xf8, 3,
] as const;

type Descriptor = readonly [selector: number, base: number, limit: number, attributes: number];
const DESCRIPTORS: readonly Descriptor[] = [
  [0x18, CODE16_BASE, 0xffff, 0x009b],
  [0x20, 0, 0xfffff, 0xc0fb],
  [0x28, 0, 0xfffff, 0xc0f3],
  [0x30, 0, 0xfffff, 0xa0fb],
  [0x38, CODE16_BASE, 0xffff, 0x0093],
  [0x60, LDT, 0xff, 0x0082],
  // Data that grows down, conforming code, a segment that is not there, a call gate.
  [0x68, 0, 0x0ffff, 0x0097],
  [0x70, 0, 0xfffff, 0xc09f],
  [0x78, 0, 0xfffff, 0x4013],
];

export interface Step {
  readonly mode: Mode;
  readonly state: DeviceState;
  readonly memory: Uint8Array;
}

const isLong = (mode: Mode): boolean => mode === 'long64' || mode === 'compat32' || mode === 'user64';
export const isReal = (mode: Mode): boolean => mode === 'real16' || mode === 'v8086';
export const is16 = (mode: Mode): boolean => isReal(mode) || mode === 'prot16';
export const is64 = (mode: Mode): boolean => mode === 'long64' || mode === 'user64';
export const isUser = (mode: Mode): boolean => mode === 'user32' || mode === 'user64' || mode === 'v8086' || mode === 'compat32';
const isPaged = (mode: Mode): boolean => !['real16', 'prot16', 'prot32'].includes(mode);
const usesPae = (mode: Mode): boolean => mode === 'pae32' || isLong(mode);

/** Where in `Step.memory` an address lies. */
export const at = (address: number): number => (address < LOW_SIZE ? address : LOW_SIZE + address - HIGH_BASE);

/** Vector of the handler that a case has come to, -1 for none. */
export function vectorAt(rip: bigint): number {
  const offset = Number(rip) - HANDLERS;
  return offset >= 0 && offset < 4 * 256 ? offset >> 2 : -1;
}

/** @param code after which the case ends */
export function makeMemory(mode: Mode, code: Uint8Array, random: Random): Uint8Array {
  const memory = new Uint8Array(MEMORY_SIZE);
  const view = new DataView(memory.buffer);
  for (let vector = 0; vector < 256; vector++) {
    // out END_PORT, al; jmp to itself
    memory.set([0xe6, END_PORT, 0xeb, 0xfc], HANDLERS + 4 * vector);
    view.setUint32(4 * vector, HANDLERS + 4 * vector, true);
  }
  writeDescriptors(view, mode);
  writeGates(view, mode, random);
  view.setUint32(TSS + 4, STACK0, true);
  if (!isLong(mode)) view.setUint32(TSS + 8, 0x10, true);
  view.setUint16(TSS + 0x66, 0x68, true);
  if (isPaged(mode)) (usesPae(mode) ? writePae : write32)(view, mode);
  memory.fill(0xcc, at(CODE_BASE), at(CODE_BASE) + 0x1000);
  const start = is16(mode) ? CODE16_BASE + CODE16 : at(CODE_START);
  memory.set([...code, ...(isUser(mode) ? ENDING.user : ENDING.kernel)], start);
  for (let i = 0; i < DATA_SIZE; i += 8) view.setBigUint64(at(DATA_BASE) + i, random.wide(), true);
  for (let i = 0; i < 0x800; i += 8) view.setBigUint64(CODE16_BASE + 0x800 + i, random.wide(), true);
  return memory;
}

function writeDescriptors(view: DataView, mode: Mode): void {
  const put = ([selector, base, limit, attributes]: Descriptor): void => {
    const place = GDT + selector;
    view.setUint32(place, (limit & 0xffff) | (base << 16), true);
    view.setUint32(place + 4, ((base >>> 16) & 0xff) | (attributes << 8) | (limit & 0xf0000) | (base & 0xff000000), true);
  };
  DESCRIPTORS.forEach(put);
  put([0x08, 0, 0xfffff, isLong(mode) ? 0xa09b : 0xc09b]);
  put([0x10, 0, 0xfffff, 0xc093]);
  put([0x40, TSS, 0x67, 0x8b]);
  view.setUint32(GDT + 0x80, (0x08 << 16) | (HANDLERS + 4 * 0xf0), true);
  view.setUint32(GDT + 0x84, 0xec00, true);
}

/** Interrupt gates, of which programs may use some. */
function writeGates(view: DataView, mode: Mode, random: Random): void {
  if (isReal(mode) && mode !== 'v8086') return;
  for (let vector = 0; vector < 256; vector++) {
    const place = IDT + vector * (isLong(mode) ? 16 : 8);
    const open = vector === 3 || vector === 4 || random.chance(20);
    view.setUint32(place, (HANDLERS + 4 * vector) | (0x08 << 16), true);
    view.setUint32(place + 4, 0x8e00 | (open ? 0x6000 : 0) | (random.chance(20) ? 0x100 : 0), true);
  }
}

const PRESENT = 1;
const WRITABLE = 2;
const USER = 4;

/** What page tables say of a page. */
function pageBits(address: number): number {
  if (address >= READ_ONLY + 0x1000 || (address >= LOW_SIZE && address < HIGH_BASE)) return 0;
  return PRESENT | USER | (address >= READ_ONLY && address < READ_ONLY + 0x1000 ? 0 : WRITABLE);
}

function writePae(view: DataView, mode: Mode): void {
  const [top, pointers, low, high, directory] = [0, 1, 2, 3, 4].map((i) => TABLES + 0x1000 * i) as [
    number,
    number,
    number,
    number,
    number,
  ];
  const entry = (place: number, value: number): void => view.setBigUint64(place, BigInt(value), true);
  const all = PRESENT | WRITABLE | USER;
  if (isLong(mode)) entry(top, pointers | all);
  entry(pointers, directory | (isLong(mode) ? all : PRESENT));
  entry(directory, low | all);
  entry(directory + 8 * (HIGH_BASE >>> 21), high | all);
  for (let page = 0; page < 512; page++) {
    const bits = page * 0x1000 < LOW_SIZE ? all : 0;
    entry(low + 8 * page, bits === 0 ? 0 : (page * 0x1000) | bits);
    const address = HIGH_BASE + page * 0x1000;
    entry(high + 8 * page, pageBits(address) === 0 ? 0 : address | pageBits(address));
  }
}

function write32(view: DataView): void {
  const [directory, low, high] = [TABLES, TABLES + 0x1000, TABLES + 0x2000];
  const all = PRESENT | WRITABLE | USER;
  view.setUint32(directory, low | all, true);
  view.setUint32(directory + 4 * (HIGH_BASE >>> 22), high | all, true);
  for (let page = 0; page < 1024; page++) {
    view.setUint32(low + 4 * page, page * 0x1000 < LOW_SIZE ? (page * 0x1000) | all : 0, true);
    const address = HIGH_BASE + page * 0x1000;
    view.setUint32(high + 4 * page, pageBits(address) === 0 ? 0 : address | pageBits(address), true);
  }
}

const CR0 = { pe: 1n, mp: 2n, ts: 8n, et: 16n, ne: 32n, wp: 1n << 16n, am: 1n << 18n, pg: 1n << 31n } as const;
const CR4 = { tsd: 4n, de: 8n, pse: 16n, pae: 32n, pge: 128n, osfxsr: 512n, osxmmexcpt: 1024n, osxsave: 1n << 18n } as const;

const segment = (selector: number, base: number, limit: number, attributes: number): StateValue => ({
  base: BigInt(base),
  limit: limit >>> 0,
  attributes,
  selector,
});

/** Code, and stack and data. */
function segmentsOf(mode: Mode): { cs: StateValue; data: StateValue } {
  const flat = 0xffffffff;
  switch (mode) {
    case 'real16':
      return {
        cs: segment(CODE16_BASE >> 4, CODE16_BASE, 0xffff, 0x9b),
        data: segment(CODE16_BASE >> 4, CODE16_BASE, 0xffff, 0x93),
      };
    case 'v8086':
      return {
        cs: segment(CODE16_BASE >> 4, CODE16_BASE, 0xffff, 0xf3),
        data: segment(CODE16_BASE >> 4, CODE16_BASE, 0xffff, 0xf3),
      };
    case 'prot16':
      return { cs: segment(0x18, CODE16_BASE, 0xffff, 0x9b), data: segment(0x38, CODE16_BASE, 0xffff, 0x93) };
    case 'user32':
    case 'compat32':
      return { cs: segment(0x23, 0, flat, 0xc0fb), data: segment(0x2b, 0, flat, 0xc0f3) };
    case 'user64':
      return { cs: segment(0x33, 0, flat, 0xa0fb), data: segment(0x2b, 0, flat, 0xc0f3) };
    case 'long64':
      return { cs: segment(0x08, 0, flat, 0xa09b), data: segment(0x10, 0, flat, 0xc093) };
    default:
      return { cs: segment(0x08, 0, flat, 0xc09b), data: segment(0x10, 0, flat, 0xc093) };
  }
}

/**
 * @param gpr sixteen, of which 32-bit modes have half; null for random ones
 * @param has which CPU features there are
 */
export function makeState(
  mode: Mode,
  gpr: readonly bigint[] | null,
  random: Random,
  has: (feature: string) => boolean,
): DeviceState {
  const state = powerOnState(0);
  const { fields } = state;
  const { cs, data } = segmentsOf(mode);
  fields['cs'] = cs;
  for (const name of ['ss', 'ds', 'es', 'fs', 'gs']) fields[name] = data;
  const wide = is64(mode);
  GPR_NAMES.forEach((name, i) => {
    const value = gpr?.[i] ?? random.wide();
    fields[name] = wide ? value : i < 8 ? value & 0xffffffffn : 0n;
  });
  if (gpr === null) fields['rsp'] = BigInt(WINDOW + 192);
  if (is16(mode)) {
    for (const name of ['rbx', 'rbp', 'rsi', 'rdi']) fields[name] = BigInt(0x800 + random.below(0x200));
    fields['rsp'] = 0x1800n;
  }
  fields['rip'] = BigInt(is16(mode) ? CODE16 : CODE_START);
  const iopl = mode === 'v8086' ? 3n : BigInt(random.below(4));
  fields['rflags'] =
    2n |
    BigInt(random.next() & 0xcd5 & ~0x400) |
    (iopl << 12n) |
    (random.chance(70) ? 0x200n : 0n) |
    (mode === 'v8086' ? 1n << 17n : 0n);
  fields['cpl'] = isUser(mode) ? 3 : 0;
  setControl(fields, mode, random, has);
  fields['gdtBase'] = BigInt(GDT);
  fields['gdtLimit'] = 0x87;
  fields['idtBase'] = mode === 'real16' ? 0n : BigInt(IDT);
  fields['idtLimit'] = isLong(mode) ? 0xfff : mode === 'real16' ? 0x3ff : 0x7ff;
  fields['tr'] = segment(0x40, TSS, 0x67, 0x8b);
  fields['ldtr'] = random.chance(50) ? segment(0, 0, 0, SEG_NULL) : segment(0x60, LDT, 0xff, 0x82);
  setVectors(fields, random, has);
  return state;
}

function setControl(fields: DeviceState['fields'], mode: Mode, random: Random, has: (feature: string) => boolean): void {
  let cr0 = CR0.et | CR0.ne | CR0.mp;
  if (mode !== 'real16') cr0 |= CR0.pe;
  if (isPaged(mode)) cr0 |= CR0.pg;
  if (random.chance(50)) cr0 |= CR0.wp;
  if (random.chance(10)) cr0 |= CR0.ts;
  let cr4 = CR4.osfxsr | CR4.osxmmexcpt | (has('xsave') ? CR4.osxsave : 0n) | (usesPae(mode) ? CR4.pae : 0n);
  if (random.chance(50)) cr4 |= CR4.pge;
  if (random.chance(50)) cr4 |= CR4.de;
  fields['cr0'] = cr0;
  fields['cr4'] = cr4;
  fields['cr2'] = random.wide() & 0xffffffffn;
  fields['cr3'] = isPaged(mode) ? BigInt(TABLES + (mode === 'pae32' ? 0x1000 : 0)) : 0n;
  if (mode === 'pae32') fields['pdptes'] = [TABLES + 0x4000 + 1, 0, 0, 0, 0, 0, 0, 0];
  fields['efer'] = isLong(mode) ? 0xd01n : 0n;
  fields['star'] = 0x0023_0008_0000_0000n;
  fields['lstar'] = fields['cstar'] = BigInt(HANDLERS + 4 * 0xf1);
  fields['sfmask'] = 0x200n;
  fields['kernelGsBase'] = BigInt(WINDOW);
  fields['sysenterCs'] = 8n;
  fields['sysenterEsp'] = BigInt(STACK0);
  fields['sysenterEip'] = BigInt(HANDLERS + 4 * 0xf2);
}

function setVectors(fields: DeviceState['fields'], random: Random, has: (feature: string) => boolean): void {
  const bytes = (count: number): Uint8Array => Uint8Array.from({ length: count }, () => random.below(256));
  fields['xcr0'] = !has('xsave') ? 1n : has('avx') ? 7n : 3n;
  fields['xmm'] = bytes(256);
  fields['ymmHigh'] = has('avx') ? bytes(256) : new Uint8Array(256);
  const x87 = bytes(128);
  // Sixteen bytes a register, of which ten count.
  for (let i = 0; i < 128; i++) if ((i & 15) > 9) x87[i] = 0;
  fields['x87'] = x87;
  fields['x87Empty'] = Uint8Array.from({ length: 8 }, () => random.below(2));
  fields['ftop'] = random.below(8);
  fields['fcw'] = 0x37f;
  fields['mxcsr'] = 0x1f80 | (random.chance(30) ? random.below(4) << 13 : 0);
}
