/**
 * A vCPU's state in the form that outlives the way it is run: named fields, 64-bit registers
 * as bigints, condition codes as plain EFLAGS. A new field needs a default when it is missing.
 */
import { CTL_PC } from '../../../ir/vcpu-block.ts';
import type { DeviceState, StateValue } from '../../../machine/interfaces.ts';
import {
  CPL,
  CR0,
  CR2,
  CR3,
  CR4,
  DR,
  DR6,
  DR7,
  EFER,
  FCS,
  FCW,
  FDP,
  FDS,
  FIP,
  FOP,
  FPREG,
  FSW,
  FTAG,
  FTOP,
  GDTR_BASE,
  GDTR_LIMIT,
  GPR,
  GPR_NAMES,
  HALTED,
  IDTR_BASE,
  IDTR_LIMIT,
  INTERRUPT_SHADOW,
  MSR_CSTAR,
  MSR_KERNEL_GS_BASE,
  MSR_LSTAR,
  MSR_MISC_ENABLE,
  MSR_PAT,
  MSR_SFMASK,
  MSR_STAR,
  MSR_SYSENTER_CS,
  MSR_SYSENTER_EIP,
  MSR_SYSENTER_ESP,
  MSR_TSC_AUX,
  MSR_XSS,
  MXCSR,
  NMI_BLOCKED,
  SEG_ATTR,
  SEG_BASE,
  SEG_LIMIT,
  SEG_SELECTOR,
  SHADOW_SS,
  XCR0,
  XMM,
  YMM_HIGH,
} from '../state.ts';
import type { Core } from './core.ts';
import type { Mmu } from './mmu.ts';
import type { Msrs } from './msr.ts';

export const STATE_VERSION = 1;

const BIG: Record<string, number> = {
  rip: CTL_PC,
  ...Object.fromEntries(GPR_NAMES.map((name, i) => [name, GPR + 8 * i])),
  cr0: CR0,
  cr2: CR2,
  cr3: CR3,
  cr4: CR4,
  efer: EFER,
  xcr0: XCR0,
  xss: MSR_XSS,
  dr0: DR,
  dr1: DR + 8,
  dr2: DR + 16,
  dr3: DR + 24,
  dr6: DR6,
  dr7: DR7,
  gdtBase: GDTR_BASE,
  idtBase: IDTR_BASE,
  star: MSR_STAR,
  lstar: MSR_LSTAR,
  cstar: MSR_CSTAR,
  sfmask: MSR_SFMASK,
  kernelGsBase: MSR_KERNEL_GS_BASE,
  sysenterCs: MSR_SYSENTER_CS,
  sysenterEsp: MSR_SYSENTER_ESP,
  sysenterEip: MSR_SYSENTER_EIP,
  tscAux: MSR_TSC_AUX,
  pat: MSR_PAT,
  miscEnable: MSR_MISC_ENABLE,
  fip: FIP,
  fdp: FDP,
};

const U32 = 0xffff_ffff;

/** Place in the state block, and the largest value. */
const WORD: Record<string, readonly [offset: number, most: number]> = {
  gdtLimit: [GDTR_LIMIT, U32],
  idtLimit: [IDTR_LIMIT, U32],
  interruptShadow: [INTERRUPT_SHADOW, SHADOW_SS],
  halted: [HALTED, 1],
  nmiBlocked: [NMI_BLOCKED, 1],
  cpl: [CPL, 3],
  fcw: [FCW, 0xffff],
  fsw: [FSW, 0xffff],
  ftop: [FTOP, 7],
  fop: [FOP, 0xffff],
  mxcsr: [MXCSR, 0xffff],
};

const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const;

const BYTES: Record<string, readonly [offset: number, length: number]> = {
  x87: [FPREG, 128],
  x87Empty: [FTAG, 8],
  xmm: [XMM, 256],
  ymmHigh: [YMM_HIGH, 256],
};

/** An x87 register has ten bytes of sixteen; its routines have marks beside them (x87/common.ts), which are nobody else's. */
function clearBesideRegisters(registers: Uint8Array): void {
  for (let at = 0; at < registers.length; at += 16) registers.fill(0, at + 10, at + 16);
}

/** State of the vCPU object that has no place in the state block. */
export interface Pending {
  nmi: boolean;
  intr: boolean;
  waitForSipi: boolean;
  shutdown: boolean;
  /** A system management interrupt waits; the mode is in force. */
  smi: boolean;
  smm: boolean;
  /** Physical address, as a signed number. */
  smbase: number;
  /** NMIs were blocked when system management mode was entered. */
  smmNmiBlocked: boolean;
  /** An INIT waits. */
  init: boolean;
  /** DR6 bits of traps that wait for the end of the instruction after MOV SS. */
  heldTraps: number;
}

export function saveState(core: Core, mmu: Mmu, msrs: Msrs, pending: Pending): DeviceState {
  const fields: { [name: string]: StateValue } = {};
  for (const [name, offset] of Object.entries(BIG)) fields[name] = core.getBigUnsigned(offset);
  for (const [name, [offset]] of Object.entries(WORD)) fields[name] = core.get(offset) >>> 0;
  for (const [name, [offset, length]] of Object.entries(BYTES)) {
    fields[name] = core.u8.slice(core.base + offset, core.base + offset + length);
  }
  clearBesideRegisters(fields['x87'] as Uint8Array);
  fields.rflags = BigInt(core.readFlags() >>> 0);
  fields.fcs = core.view.getUint16(core.base + FCS, true);
  fields.fds = core.view.getUint16(core.base + FDS, true);
  SEGMENTS.forEach((name, segment) => {
    const at = core.segAt(segment);
    fields[name] = {
      base: core.getBigUnsigned(at + SEG_BASE),
      limit: core.get(at + SEG_LIMIT) >>> 0,
      attributes: core.get(at + SEG_ATTR),
      selector: core.get(at + SEG_SELECTOR),
    };
  });
  fields.pdptes = Array.from(mmu.pdpte);
  fields.a20 = mmu.a20;
  fields.msrs = msrs.save();
  fields.clockVersion = msrs.clockVersion;
  fields.exceptionWatchers = [...core.watchers];
  fields.pending = { ...pending };
  return { version: STATE_VERSION, fields };
}

class Reader {
  private readonly fields: { [name: string]: StateValue };
  private readonly where: string;

  constructor(fields: { [name: string]: StateValue }, where = '') {
    this.fields = fields;
    this.where = where;
  }

  private take<T>(name: string, kind: string, fits: (value: StateValue | undefined) => boolean): T {
    const value = this.fields[name];
    if (!fits(value)) throw new Error(`saved CPU state: field "${this.where}${name}" is not ${kind}`);
    return value as T;
  }
  /** 64 bits. */
  big(name: string): bigint {
    return this.take(name, 'an integer of 64 bits', (v) => typeof v === 'bigint' && BigInt.asUintN(64, v) === v);
  }
  /** @param most largest value @param byDefault where the field is missing; without it, it must be there */
  number(name: string, most: number, byDefault?: number): number {
    if (byDefault !== undefined && this.fields[name] === undefined) return byDefault;
    return this.take(
      name,
      `a number from 0 to ${most}`,
      (v) => typeof v === 'number' && Number.isInteger(v) && v >= 0 && v <= most,
    );
  }
  signed(name: string): number {
    return this.take(name, 'a signed number of 32 bits', (v) => typeof v === 'number' && (v | 0) === v);
  }
  flag(name: string, byDefault?: boolean): boolean {
    if (byDefault !== undefined && this.fields[name] === undefined) return byDefault;
    return this.take(name, 'true or false', (v) => typeof v === 'boolean');
  }
  text<T extends string>(name: string, known: readonly T[]): T {
    return this.take(name, `one of ${known.join(', ')}`, (v) => known.some((one) => one === v));
  }
  /** @param most largest value of each */
  bytes(name: string, length: number, most = 0xff): Uint8Array {
    const fits = (v: StateValue | undefined): boolean =>
      v instanceof Uint8Array && v.length === length && v.every((byte) => byte <= most);
    return this.take(name, `${length} bytes${most === 0xff ? '' : ` up to ${most}`}`, fits);
  }
  list(name: string, length: number): number[] {
    const fits = (v: StateValue | undefined): boolean => Array.isArray(v) && v.length === length && v.every(isWord);
    return this.take(name, `a list of ${length} numbers of 32 bits`, fits);
  }
  /** Numbers, none when the field is missing. */
  optionalList(name: string): number[] {
    if (this.fields[name] === undefined) return [];
    return this.take(name, 'a list of numbers', (v) => Array.isArray(v) && v.every((item) => typeof item === 'number'));
  }
  group(name: string): Reader {
    const fields = this.take<{ [name: string]: StateValue }>(
      name,
      'a group of fields',
      (v) => typeof v === 'object' && v !== null && !Array.isArray(v) && !(v instanceof Uint8Array),
    );
    return new Reader(fields, `${this.where}${name}.`);
  }
  bigs(name: string): { [name: string]: bigint } {
    const group = this.group(name);
    for (const key of Object.keys(group.fields)) group.big(key);
    return group.fields as { [name: string]: bigint };
  }
}

const isWord = (value: StateValue): boolean => typeof value === 'number' && (value | 0) === value;

/** Bits of a segment's attributes: those of the descriptor, and SEG_NULL. */
const ATTRIBUTES = 0x1ffff;

/** @throws Error naming the field that does not fit */
export function loadState(core: Core, mmu: Mmu, msrs: Msrs, state: DeviceState): Pending {
  if (state.version !== STATE_VERSION) throw new Error(`saved CPU state: unknown version ${state.version}`);
  const from = new Reader(state.fields);
  for (const [name, offset] of Object.entries(BIG)) core.setBig(offset, from.big(name));
  for (const [name, [offset, most]] of Object.entries(WORD)) core.set(offset, from.number(name, most) | 0);
  for (const [name, [offset, length]] of Object.entries(BYTES)) {
    core.u8.set(from.bytes(name, length, name === 'x87Empty' ? 1 : 0xff), core.base + offset);
  }
  clearBesideRegisters(core.u8.subarray(core.base + FPREG, core.base + FPREG + 128));
  core.writeFlags(Number(from.big('rflags') & 0xffffffffn) | 0);
  core.view.setUint16(core.base + FCS, from.number('fcs', 0xffff), true);
  core.view.setUint16(core.base + FDS, from.number('fds', 0xffff), true);
  SEGMENTS.forEach((name, segment) => {
    const group = from.group(name);
    const at = core.segAt(segment);
    core.setBig(at + SEG_BASE, group.big('base'));
    core.set(at + SEG_LIMIT, group.number('limit', U32) | 0);
    core.set(at + SEG_ATTR, group.number('attributes', ATTRIBUTES));
    core.set(at + SEG_SELECTOR, group.number('selector', 0xffff));
  });
  mmu.pdpte.set(from.list('pdptes', 8));
  mmu.setA20(from.flag('a20'));
  msrs.load(from.bigs('msrs'), from.number('clockVersion', U32, 0));
  core.watchers.clear();
  for (const space of from.optionalList('exceptionWatchers')) core.watchers.add(space);
  const pending = from.group('pending');
  return {
    nmi: pending.flag('nmi'),
    intr: pending.flag('intr'),
    waitForSipi: pending.flag('waitForSipi'),
    shutdown: pending.flag('shutdown'),
    smi: pending.flag('smi'),
    smm: pending.flag('smm'),
    smbase: pending.signed('smbase'),
    smmNmiBlocked: pending.flag('smmNmiBlocked', false),
    init: pending.flag('init', false),
    heldTraps: pending.number('heldTraps', 0xffff, 0),
  };
}

/** An event whose delivery has begun elsewhere, and which comes before everything else. */
export interface InjectedEvent {
  readonly vector: number;
  /** -1 for none. */
  readonly errorCode: number;
  readonly kind: 'exception' | 'interrupt' | 'software' | 'nmi';
}

/** @returns null in most states @throws Error naming the field that does not fit */
export function injectedEvent({ fields }: DeviceState): InjectedEvent | null {
  if (fields['injected'] === undefined) return null;
  const from = new Reader(fields).group('injected');
  const errorCode = from.signed('errorCode');
  return {
    vector: from.number('vector', 255),
    errorCode,
    kind: from.text('kind', ['exception', 'interrupt', 'software', 'nmi']),
  };
}
