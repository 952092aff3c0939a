/**
 * A vCPU between the form that every accelerator shares (isa/x86/system/saved-state.ts) and the kernel's structures.
 * Nothing here asks the kernel: conversions of values, both ways.
 */
import type { DeviceState, StateValue } from '../../machine/interfaces.ts';
import { GPR_NAMES, SEG_NULL, SHADOW_SS, SHADOW_STI } from '../../isa/x86/state.ts';
import { AVX_BYTES, AVX_OFFSET, AT_MXCSR, AT_REGISTERS, AT_XMM, XSAVE_LEGACY } from '../../isa/x86/system/xsave-layout.ts';
import { SMBASE_AFTER_RESET } from '../../isa/x86/system/power-on.ts';
import type { InjectedEvent, Pending } from '../../isa/x86/system/saved-state.ts';
import { NUMBERS } from '../constants.ts';
import { KVM_REGS, KVM_SEGMENT, KVM_SREGS2, KVM_VCPU_EVENTS, KVM_DEBUGREGS } from '../layouts.ts';
import { encode, read, viewOf, type Value } from '../struct.ts';

export type KernelRegs = Value<typeof KVM_REGS>;
export type KernelSregs = Value<typeof KVM_SREGS2>;
export type KernelSegment = Value<typeof KVM_SEGMENT>;
export type KernelEvents = Value<typeof KVM_VCPU_EVENTS>;
export type KernelDebugRegs = Value<typeof KVM_DEBUGREGS>;

/** All that the kernel keeps of a vCPU but its local APIC's registers. */
export interface KernelCpu {
  readonly regs: KernelRegs;
  /** `apic_base` and `cr8` belong to the local APIC. */
  readonly sregs: KernelSregs;
  readonly debugRegs: KernelDebugRegs;
  readonly events: KernelEvents;
  /** KVM_MP_STATE_... */
  readonly mpState: number;
  readonly xcr0: bigint;
  /** An area as XSAVE writes it, in the standard form. */
  readonly xsave: Uint8Array;
  readonly msrs: ReadonlyMap<number, bigint>;
}

/** Bits of `kvm_sregs2.flags`, which are 64. */
export const SREGS2_PDPTRS_VALID = BigInt(NUMBERS.KVM_SREGS2_FLAGS_PDPTRS_VALID);
const SHADOW = { movSs: NUMBERS.KVM_X86_SHADOW_INT_MOV_SS, sti: NUMBERS.KVM_X86_SHADOW_INT_STI } as const;

/** MSRs that the shared form has as fields. */
const NAMED_MSRS: Readonly<Record<string, number>> = {
  star: 0xc0000081,
  lstar: 0xc0000082,
  cstar: 0xc0000083,
  sfmask: 0xc0000084,
  kernelGsBase: 0xc0000102,
  sysenterCs: 0x174,
  sysenterEsp: 0x175,
  sysenterEip: 0x176,
  tscAux: 0xc0000103,
  pat: 0x277,
  miscEnable: 0x1a0,
  xss: 0xda0,
};
/** They are a part of every state, also as they are after reset. */
export const ALWAYS_KEPT: ReadonlySet<number> = new Set(Object.values(NAMED_MSRS));
const SMBASE = 0x9e;
const SEGMENTS = { es: 'es', cs: 'cs', ss: 'ss', ds: 'ds', fs: 'fs', gs: 'gs', ldtr: 'ldt', tr: 'tr' } as const;
const CONTROL = ['cr0', 'cr2', 'cr3', 'cr4', 'efer'] as const;
const VM = 1n << 17n;
const CR0_PE = 1n;
/** Components that the shared form has fields for: x87, SSE, AVX. */
const COMPONENTS = 7n;

type Fields = { [name: string]: StateValue };
type Segment = { base: bigint; limit: number; attributes: number; selector: number };

// --- To the kernel

/** @param xsaveBytes size of the kernel's area */
export function cpuToKernel(state: DeviceState, xsaveBytes: number): KernelCpu {
  const f = state.fields;
  const pending = f['pending'] as unknown as Pending;
  return {
    regs: regsToKernel(f),
    sregs: sregsToKernel(f),
    debugRegs: debugToKernel(f),
    events: eventsToKernel(f, pending),
    // The kernel waits for INIT first where a vCPU is uninitialized; after a reset, a processor does not.
    mpState: pending.waitForSipi
      ? NUMBERS.KVM_MP_STATE_INIT_RECEIVED
      : f['halted']
        ? NUMBERS.KVM_MP_STATE_HALTED
        : NUMBERS.KVM_MP_STATE_RUNNABLE,
    xcr0: f['xcr0'] as bigint,
    xsave: xsaveToKernel(f, xsaveBytes),
    msrs: msrsToKernel(f, pending),
  };
}

function regsToKernel(f: Fields): KernelRegs {
  const regs = { rip: f['rip'], rflags: f['rflags'] } as Record<string, StateValue>;
  for (const name of GPR_NAMES) regs[name] = f[name]!;
  return regs as unknown as KernelRegs;
}

function sregsToKernel(f: Fields): KernelSregs {
  const segments = Object.entries(SEGMENTS).map(([ours, theirs]) => [theirs, segmentToKernel(f[ours] as unknown as Segment)]);
  const { ss, ...others } = Object.fromEntries(segments) as Record<string, KernelSegment>;
  const table = (name: string) => ({ base: f[`${name}Base`] as bigint, limit: f[`${name}Limit`] as number, padding: [0, 0, 0] });
  return {
    ...read(KVM_SREGS2, viewOf(encode(KVM_SREGS2, {}))),
    ...others,
    // The kernel takes the privilege level from here, also where the segment is a null one.
    ss: { ...ss!, dpl: f['cpl'] as number },
    ...Object.fromEntries(CONTROL.map((name) => [name, f[name]])),
    gdt: table('gdt'),
    idt: table('idt'),
    flags: SREGS2_PDPTRS_VALID,
    pdptrs: pairs(f['pdptes'] as number[]),
  } as KernelSregs;
}

const pairs = (words: readonly number[]): bigint[] =>
  [0, 1, 2, 3].map((i) => (BigInt(words[2 * i + 1]! >>> 0) << 32n) | BigInt(words[2 * i]! >>> 0));

function segmentToKernel({ base, limit, attributes: a, selector }: Segment): KernelSegment {
  return {
    base,
    limit,
    selector,
    type: a & 15,
    s: (a >> 4) & 1,
    dpl: (a >> 5) & 3,
    present: (a >> 7) & 1,
    avl: (a >> 12) & 1,
    l: (a >> 13) & 1,
    db: (a >> 14) & 1,
    g: (a >> 15) & 1,
    unusable: a & SEG_NULL ? 1 : 0,
    padding: 0,
  };
}

function debugToKernel(f: Fields): KernelDebugRegs {
  return {
    db: [0, 1, 2, 3].map((i) => f[`dr${i}`] as bigint),
    dr6: f['dr6'] as bigint,
    dr7: f['dr7'] as bigint,
    flags: 0n,
    reserved: new Array<bigint>(9).fill(0n),
  };
}

function eventsToKernel(f: Fields, pending: Pending): KernelEvents {
  const shadow = f['interruptShadow'] as number;
  const events = read(KVM_VCPU_EVENTS, viewOf(encode(KVM_VCPU_EVENTS, {})));
  events.flags = NUMBERS.KVM_VCPUEVENT_VALID_NMI_PENDING | NUMBERS.KVM_VCPUEVENT_VALID_SHADOW;
  events.interrupt.shadow = (shadow & SHADOW_SS ? SHADOW.movSs : 0) | (shadow & SHADOW_STI ? SHADOW.sti : 0);
  events.nmi.masked = f['nmiBlocked'] as number;
  events.nmi.pending = Number(pending.nmi);
  if (pending.smm || pending.smi || pending.init) events.flags |= NUMBERS.KVM_VCPUEVENT_VALID_SMM;
  events.smi.smm = Number(pending.smm);
  events.smi.pending = Number(pending.smi);
  events.smi.smm_inside_nmi = Number(pending.smmNmiBlocked);
  events.smi.latched_init = Number(pending.init);
  const injected = f['injected'] as unknown as InjectedEvent | undefined;
  if (injected !== undefined) inject(events, injected);
  return events;
}

function inject(events: KernelEvents, { vector, errorCode, kind }: InjectedEvent): void {
  if (kind === 'nmi') events.nmi.injected = 1;
  else if (kind === 'exception') {
    const { exception } = events;
    Object.assign(exception, {
      injected: 1,
      nr: vector,
      has_error_code: Number(errorCode >= 0),
      error_code: Math.max(0, errorCode),
    });
  } else Object.assign(events.interrupt, { injected: 1, nr: vector, soft: Number(kind === 'software') });
}

function xsaveToKernel(f: Fields, bytes: number): Uint8Array {
  const area = new Uint8Array(bytes);
  const whole = f['xsaveArea'] as Uint8Array | undefined;
  if (whole !== undefined) area.set(whole.subarray(0, bytes));
  const view = viewOf(area);
  const top = f['ftop'] as number;
  view.setUint16(0, f['fcw'] as number, true);
  view.setUint16(2, ((f['fsw'] as number) & ~0x3800) | (top << 11), true);
  const empty = f['x87Empty'] as Uint8Array;
  view.setUint8(
    4,
    empty.reduce((tags, one, i) => tags | (one === 0 ? 1 << i : 0), 0),
  );
  view.setUint16(6, f['fop'] as number, true);
  view.setBigUint64(8, f['fip'] as bigint, true);
  view.setBigUint64(16, f['fdp'] as bigint, true);
  view.setUint32(AT_MXCSR, f['mxcsr'] as number, true);
  const x87 = f['x87'] as Uint8Array;
  // By place in the stack; the sixteen bytes of a register have ten that count.
  for (let i = 0; i < 8; i++) area.set(x87.subarray(16 * ((top + i) & 7), 16 * ((top + i) & 7) + 10), AT_REGISTERS + 16 * i);
  area.set(f['xmm'] as Uint8Array, AT_XMM);
  if (bytes >= AVX_OFFSET + AVX_BYTES) area.set(f['ymmHigh'] as Uint8Array, AVX_OFFSET);
  view.setBigUint64(XSAVE_LEGACY, view.getBigUint64(XSAVE_LEGACY, true) | 3n | ((f['xcr0'] as bigint) & 4n), true);
  return area;
}

function msrsToKernel(f: Fields, pending: Pending): Map<number, bigint> {
  const msrs = new Map<number, bigint>();
  for (const [name, number] of Object.entries(NAMED_MSRS)) msrs.set(number, f[name] as bigint);
  for (const [number, value] of Object.entries(f['msrs'] as { [number: string]: bigint })) msrs.set(parseInt(number, 16), value);
  if (pending.smm || pending.smbase !== SMBASE_AFTER_RESET) msrs.set(SMBASE, BigInt(pending.smbase >>> 0));
  return msrs;
}

// --- From the kernel

/** @param before an older state of the same vCPU, for what the kernel does not keep */
export function cpuFromKernel(k: KernelCpu, before: DeviceState): DeviceState {
  const old = before.fields;
  const fields: Fields = { ...old };
  for (const name of ['rip', 'rflags', ...GPR_NAMES] as const) fields[name] = k.regs[name as keyof KernelRegs];
  sregsFromKernel(k, fields);
  k.debugRegs.db.forEach((value, i) => (fields[`dr${i}`] = value));
  fields['dr6'] = k.debugRegs.dr6;
  fields['dr7'] = k.debugRegs.dr7;
  fields['xcr0'] = k.xcr0;
  xsaveFromKernel(k, fields);
  msrsFromKernel(k, fields);
  eventsFromKernel(k, fields);
  return { version: before.version, fields };
}

function sregsFromKernel({ sregs, regs }: KernelCpu, fields: Fields): void {
  for (const [ours, theirs] of Object.entries(SEGMENTS)) {
    fields[ours] = segmentFromKernel(sregs[theirs]) as unknown as StateValue;
  }
  for (const name of CONTROL) fields[name] = sregs[name];
  for (const name of ['gdt', 'idt'] as const) {
    fields[`${name}Base`] = sregs[name].base;
    fields[`${name}Limit`] = sregs[name].limit;
  }
  fields['cpl'] = (sregs.cr0 & CR0_PE) === 0n ? 0 : (regs.rflags & VM) !== 0n ? 3 : sregs.ss.dpl;
  if (sregs.flags & SREGS2_PDPTRS_VALID) {
    fields['pdptes'] = sregs.pdptrs.flatMap((entry) => [Number(entry & 0xffffffffn) | 0, Number(entry >> 32n) | 0]);
  }
}

function segmentFromKernel(k: KernelSegment): Segment {
  const attributes =
    k.type | (k.s << 4) | (k.dpl << 5) | (k.present << 7) | (k.avl << 12) | (k.l << 13) | (k.db << 14) | (k.g << 15);
  // Null selectors keep what 64-bit code still uses of them.
  const unusable = k.unusable !== 0 || (k.present === 0 && k.s === 0 && k.type === 0);
  return { base: k.base, limit: k.limit, selector: k.selector, attributes: unusable ? SEG_NULL : attributes };
}

function xsaveFromKernel({ xsave, xcr0 }: KernelCpu, fields: Fields): void {
  const view = viewOf(xsave);
  const present = view.getBigUint64(XSAVE_LEGACY, true);
  const has = (component: bigint): boolean => (present & component) !== 0n;
  const fsw = has(1n) ? view.getUint16(2, true) : 0;
  const top = (fsw >> 11) & 7;
  const tags = has(1n) ? view.getUint8(4) : 0;
  fields['fcw'] = has(1n) ? view.getUint16(0, true) : 0x37f;
  fields['fsw'] = fsw & ~0x3800;
  fields['ftop'] = top;
  fields['x87Empty'] = Uint8Array.from({ length: 8 }, (_, i) => (tags & (1 << i) ? 0 : 1));
  fields['fop'] = has(1n) ? view.getUint16(6, true) : 0;
  fields['fip'] = has(1n) ? view.getBigUint64(8, true) : 0n;
  fields['fdp'] = has(1n) ? view.getBigUint64(16, true) : 0n;
  fields['fcs'] = fields['fds'] = 0;
  fields['mxcsr'] = view.getUint32(AT_MXCSR, true);
  const x87 = new Uint8Array(128);
  if (has(1n)) {
    for (let i = 0; i < 8; i++) x87.set(xsave.subarray(AT_REGISTERS + 16 * i, AT_REGISTERS + 16 * i + 10), 16 * ((top + i) & 7));
  }
  fields['x87'] = x87;
  fields['xmm'] = has(2n) ? xsave.slice(AT_XMM, AT_XMM + 256) : new Uint8Array(256);
  fields['ymmHigh'] = has(4n) ? xsave.slice(AVX_OFFSET, AVX_OFFSET + AVX_BYTES) : new Uint8Array(AVX_BYTES);
  if (xcr0 & ~COMPONENTS) fields['xsaveArea'] = xsave.slice();
  else delete fields['xsaveArea'];
}

function msrsFromKernel(k: KernelCpu, fields: Fields): void {
  const rest = new Map(k.msrs);
  for (const [name, number] of Object.entries(NAMED_MSRS)) {
    fields[name] = rest.get(number) ?? fields[name]!;
    rest.delete(number);
  }
  const smbase = rest.get(SMBASE);
  rest.delete(SMBASE);
  fields['msrs'] = Object.fromEntries([...rest].map(([number, value]) => [number.toString(16), value]));
  const old = fields['pending'] as unknown as Pending;
  const { smi, nmi } = k.events;
  fields['pending'] = {
    ...old,
    nmi: nmi.pending !== 0,
    intr: false,
    init: smi.latched_init !== 0,
    waitForSipi: isParked(k.mpState),
    shutdown: false,
    smi: smi.pending !== 0,
    smm: smi.smm !== 0,
    smmNmiBlocked: smi.smm_inside_nmi !== 0,
    smbase: smbase === undefined ? old.smbase : Number(BigInt.asIntN(32, smbase)),
  };
}

const isParked = (mpState: number): boolean =>
  mpState === NUMBERS.KVM_MP_STATE_UNINITIALIZED || mpState === NUMBERS.KVM_MP_STATE_INIT_RECEIVED;

function eventsFromKernel({ events, mpState }: KernelCpu, fields: Fields): void {
  const { shadow } = events.interrupt;
  fields['interruptShadow'] = (shadow & SHADOW.movSs ? SHADOW_SS : 0) | (shadow & SHADOW.sti ? SHADOW_STI : 0);
  fields['nmiBlocked'] = events.nmi.masked;
  fields['halted'] = mpState === NUMBERS.KVM_MP_STATE_HALTED || isParked(mpState) ? 1 : 0;
  const injected = injectedOf(events);
  if (injected === null) delete fields['injected'];
  else fields['injected'] = injected as unknown as StateValue;
}

function injectedOf({ exception, interrupt, nmi }: KernelEvents): InjectedEvent | null {
  if (exception.injected || exception.pending) {
    return { vector: exception.nr, errorCode: exception.has_error_code ? exception.error_code : -1, kind: 'exception' };
  }
  if (interrupt.injected) return { vector: interrupt.nr, errorCode: -1, kind: interrupt.soft ? 'software' : 'interrupt' };
  return nmi.injected ? { vector: 2, errorCode: -1, kind: 'nmi' } : null;
}
