/**
 * A local APIC between the board's form and the kernel's: the register page of `struct kvm_lapic_state`, a base
 * register that is kept with the CPU's and a deadline that is kept with its MSRs. Both timers count at 1 GHz.
 */
import { TIMER_MODE, type ApicTimerState } from '../../devices/intc/apic-timer.ts';
import type { DeviceState } from '../../machine/interfaces.ts';
import { viewOf } from '../struct.ts';

export interface KernelApic {
  /** Registers, one every 16 bytes (SDM vol. 3, table 12-1). */
  readonly page: Uint8Array;
  /** IA32_APIC_BASE. */
  readonly base: bigint;
  /** IA32_TSC_DEADLINE. */
  readonly tscDeadline: bigint;
}

type Fields = {
  baseLow: number;
  baseHigh: number;
  xapicId: number;
  tpr: number;
  ldr: number;
  dfr: number;
  svr: number;
  esr: number;
  esrPending: number;
  icrLow: number;
  icrHigh: number;
  extInt: boolean;
  lvt: number[];
  irr: number[];
  isr: number[];
  tmr: number[];
  timer: ApicTimerState;
};

const PAGE_BYTES = 1024;
const VERSION = 0x50014;
const BASE_X2APIC = 1 << 10;
/** Offsets in the page. */
const AT = {
  id: 0x20,
  version: 0x30,
  tpr: 0x80,
  ldr: 0xd0,
  dfr: 0xe0,
  svr: 0xf0,
  isr: 0x100,
  tmr: 0x180,
  irr: 0x200,
  esr: 0x280,
  icrLow: 0x300,
  icrHigh: 0x310,
  lvt: 0x320,
  initial: 0x380,
  current: 0x390,
  divide: 0x3e0,
} as const;
const SETS = ['isr', 'tmr', 'irr'] as const;
const WORDS = ['tpr', 'ldr', 'dfr', 'svr', 'esr', 'icrLow', 'icrHigh'] as const;

/** @param now virtual nanoseconds  @param apicId what the processor is called in x2APIC mode */
export function apicToKernel(state: DeviceState, now: number, apicId: number): KernelApic {
  const s = state.fields as unknown as Fields;
  const page = new Uint8Array(PAGE_BYTES);
  const view = viewOf(page);
  const put = (at: number, value: number): void => view.setUint32(at, value, true);
  const x2apic = (s.baseLow & BASE_X2APIC) !== 0;
  put(AT.id, (x2apic ? apicId : s.xapicId) << 24);
  put(AT.version, VERSION);
  for (const name of WORDS) put(AT[name], s[name]);
  if (x2apic) put(AT.ldr, ((apicId >> 4) << 16) | (1 << (apicId & 15)));
  for (const name of SETS) s[name].forEach((word, i) => put(AT[name] + 16 * i, word));
  s.lvt.forEach((entry, i) => put(AT.lvt + 16 * i, entry));
  put(AT.divide, s.timer.divide);
  const { current, deadline } = remaining(s.timer, now);
  put(AT.initial, s.timer.mode === TIMER_MODE.deadline ? 0 : s.timer.initialCount);
  put(AT.current, current);
  return { page, base: (BigInt(s.baseHigh) << 32n) | BigInt(s.baseLow), tscDeadline: deadline };
}

/** @param before the board's state, for what the kernel does not keep */
export function apicFromKernel({ page, base, tscDeadline }: KernelApic, before: DeviceState, now: number): DeviceState {
  const old = before.fields as unknown as Fields;
  const view = viewOf(page);
  const get = (at: number): number => view.getUint32(at, true);
  const list = (at: number, count: number): number[] => Array.from({ length: count }, (_, i) => get(at + 16 * i));
  const x2apic = (base & BigInt(BASE_X2APIC)) !== 0n;
  const lvt = list(AT.lvt, old.lvt.length);
  const fields: Fields = {
    baseLow: Number(base & 0xffffffffn),
    baseHigh: Number(base >> 32n),
    xapicId: x2apic ? old.xapicId : get(AT.id) >>> 24,
    tpr: get(AT.tpr) & 0xff,
    ldr: x2apic ? old.ldr : get(AT.ldr),
    dfr: x2apic ? old.dfr : get(AT.dfr),
    svr: get(AT.svr) & 0x1ff,
    esr: get(AT.esr),
    esrPending: 0,
    icrLow: get(AT.icrLow),
    icrHigh: get(AT.icrHigh),
    extInt: false,
    lvt,
    irr: list(AT.irr, 8),
    isr: list(AT.isr, 8),
    tmr: list(AT.tmr, 8),
    timer: timerFromKernel((lvt[0]! >>> 17) & 3, get(AT.initial), get(AT.current), get(AT.divide), tscDeadline, now),
  };
  return { version: before.version, fields: { ...before.fields, ...fields } as unknown as DeviceState['fields'] };
}

function divisor(divide: number): number {
  const code = (divide & 3) | ((divide & 8) >> 1);
  return code === 7 ? 1 : 2 << code;
}

function remaining(timer: ApicTimerState, now: number): { current: number; deadline: bigint } {
  const { mode, startNs, initialCount, divide, tscDeadline } = timer;
  if (mode === TIMER_MODE.deadline) return { current: 0, deadline: tscDeadline };
  if (startNs < 0 || initialCount === 0) return { current: 0, deadline: 0n };
  const ticks = Math.floor((now - startNs) / divisor(divide));
  // Zero would be a timer that stands still: the tick that is just due comes one count later.
  const left = mode === TIMER_MODE.periodic ? initialCount - (ticks % initialCount) : initialCount - ticks;
  return { current: Math.max(1, left), deadline: 0n };
}

function timerFromKernel(
  mode: number,
  initialCount: number,
  current: number,
  divide: number,
  tscDeadline: bigint,
  now: number,
): ApicTimerState {
  // A count of zero may be an interrupt that has not reached the registers yet: like the kernel itself, which keeps nothing
  // of it there, we have the timer expire once more rather than never.
  const counts = mode !== TIMER_MODE.deadline && initialCount !== 0;
  return {
    initialCount,
    divide: divide & 0xb,
    mode,
    startNs: counts ? Math.max(0, now - (initialCount - current) * divisor(divide)) : -1,
    tscDeadline: mode === TIMER_MODE.deadline ? tscDeadline : 0n,
  };
}
