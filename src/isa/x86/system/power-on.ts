/**
 * The state that a vCPU begins in, in the form that all accelerators share (saved-state.ts): after a reset
 * (SDM vol. 3, table 10-1), or as a loader wants it.
 */
import type { DeviceState, StateValue } from '../../../machine/interfaces.ts';
import type { InitialCpuState, InitialSegment } from '../../../machine/loader/cpu-state.ts';
import { GPR_NAMES, MXCSR_DEFAULT, SEG_NULL } from '../state.ts';
import { STATE_VERSION } from './saved-state.ts';

type Fields = { [name: string]: StateValue };

const CR0_AFTER_RESET = 0x60000010n;
const DATA = 0x93;
const CODE = 0x9b;
const LDT = 0x82;
const TSS = 0x8b;
const PAT_AFTER_RESET = 0x0007040600070406n;
/** Where system management mode saves its state and begins (SDM vol. 3, 33.11). */
export const SMBASE_AFTER_RESET = 0x30000;
/** Fast strings; no branch trace storage, no PEBS. */
export const MISC_ENABLE_AFTER_RESET = 0x1801;
/** MTRRs on, write-back where they say nothing, as firmware leaves them. */
export const MTRR_AFTER_FIRMWARE = 0x806;
export const MSR_MTRR_DEFAULT = 0x2ff;

/** @param version CPUID's word on family, model and stepping, which is in EDX */
export function powerOnState(version: number): DeviceState {
  const fields: Fields = {};
  const zeros = 'cr2 cr3 cr4 efer xss dr0 dr1 dr2 dr3 gdtBase idtBase star lstar cstar sfmask kernelGsBase sysenterCs';
  for (const name of [...GPR_NAMES, ...zeros.split(' '), 'sysenterEsp', 'sysenterEip', 'tscAux', 'fip', 'fdp']) fields[name] = 0n;
  for (const name of 'interruptShadow halted nmiBlocked cpl fsw ftop fop fcs fds'.split(' ')) fields[name] = 0;
  const segment = (attributes: number, selector = 0, base = 0n): StateValue => ({ base, limit: 0xffff, attributes, selector });
  for (const name of ['es', 'ss', 'ds', 'fs', 'gs']) fields[name] = segment(DATA);
  Object.assign(fields, {
    rip: 0xfff0n,
    rdx: BigInt(version >>> 0),
    rflags: 2n,
    cr0: CR0_AFTER_RESET,
    xcr0: 1n,
    dr6: 0xffff0ff0n,
    dr7: 0x400n,
    pat: PAT_AFTER_RESET,
    miscEnable: BigInt(MISC_ENABLE_AFTER_RESET),
    gdtLimit: 0xffff,
    idtLimit: 0xffff,
    fcw: 0x37f,
    mxcsr: MXCSR_DEFAULT,
    cs: segment(CODE, 0xf000, 0xffff0000n),
    ldtr: segment(LDT),
    tr: segment(TSS),
    x87: new Uint8Array(128),
    x87Empty: new Uint8Array(8).fill(1),
    xmm: new Uint8Array(256),
    ymmHigh: new Uint8Array(256),
    pdptes: new Array<number>(8).fill(0),
    a20: true,
    msrs: {},
    exceptionWatchers: [],
    clockVersion: 0,
    pending: {
      ...{ nmi: false, intr: false, init: false, waitForSipi: false, shutdown: false, heldTraps: 0 },
      ...{ smi: false, smm: false, smmNmiBlocked: false, smbase: SMBASE_AFTER_RESET },
    },
  });
  return { version: STATE_VERSION, fields };
}

/** A processor beside the first, which waits until it is told where to start. */
export function parkedState(version: number): DeviceState {
  const state = powerOnState(version);
  const { fields } = state;
  fields['halted'] = 1;
  fields['pending'] = { ...(fields['pending'] as Fields), waitForSipi: true };
  return state;
}

/** The same as a loader wants it, which skips firmware. */
export function startState(version: number, start: InitialCpuState): DeviceState {
  const state = powerOnState(version);
  if (start.mode === 'real16') return state;
  const { fields } = state;
  for (const name of ['rip', 'rsi', 'rbx', 'rsp', 'cr0', 'cr3', 'cr4', 'efer', 'gdtBase'] as const) {
    fields[name] = BigInt(start[name]);
  }
  fields['gdtLimit'] = start.gdtLimit;
  const put = ({ selector, base, limit, attributes }: InitialSegment): StateValue => ({
    base: BigInt(base),
    limit: limit >>> 0,
    attributes,
    selector,
  });
  fields['cs'] = put(start.cs);
  for (const name of ['es', 'ss', 'ds']) fields[name] = put(start.ds);
  for (const name of ['fs', 'gs']) fields[name] = { base: 0n, limit: 0, attributes: SEG_NULL, selector: 0 };
  fields['msrs'] = { [MSR_MTRR_DEFAULT.toString(16)]: BigInt(MTRR_AFTER_FIRMWARE) };
  return state;
}
