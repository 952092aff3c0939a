/** The state in which a loaded image wants the first vCPU to start. */

export type InitialSegment = {
  selector: number;
  base: number;
  limit: number;
  /** Bits 40 to 55 of the descriptor: type, S, DPL, P in bits 0-7; AVL, L, D/B, G in bits 12-15. */
  attributes: number;
};

export type InitialCpuState = {
  mode: 'long64' | 'prot32' | 'real16';
  rip: number;
  /** Registers not named here start as zero. */
  rsi: number;
  rbx: number;
  rsp: number;
  cr0: number;
  cr3: number;
  cr4: number;
  efer: number;
  gdtBase: number;
  gdtLimit: number;
  cs: InitialSegment;
  /** Also SS and ES; FS and GS in real mode. */
  ds: InitialSegment;
};

const CODE64 = 0xa09b;
const CODE32 = 0xc09b;
const DATA32 = 0xc093;
const FLAT_LIMIT = 0xffffffff;
const CR0_PE = 1;
const CR0_ET = 0x10;
const CR0_PG = 0x80000000;
const CR4_PAE = 0x20;
const EFER_LME_LMA = 0x500;

export const BOOT_CS = 0x10;
export const BOOT_DS = 0x18;

/** The table that both selectors index: two unused entries, code, data. */
export function bootGdt(mode: 'long64' | 'prot32'): Uint8Array {
  const gdt = new Uint8Array(32);
  const view = new DataView(gdt.buffer);
  const code = mode === 'long64' ? CODE64 : CODE32;
  for (const [at, attributes] of [
    [BOOT_CS, code],
    [BOOT_DS, DATA32],
  ] as const) {
    view.setUint32(at, 0x0000ffff, true);
    // Limit bits 16-19 sit between the two parts of the attributes.
    view.setUint32(at + 4, (((attributes & 0xf0ff) << 8) | 0x000f0000) >>> 0, true);
  }
  return gdt;
}

export function flatState(
  mode: 'long64' | 'prot32',
  set: { rip: number; rsi: number; rbx: number; rsp: number; cr3: number; gdtBase: number },
): InitialCpuState {
  const long = mode === 'long64';
  return {
    mode,
    ...set,
    cr0: (CR0_PE | CR0_ET | (long ? CR0_PG : 0)) >>> 0,
    cr4: long ? CR4_PAE : 0,
    efer: long ? EFER_LME_LMA : 0,
    gdtLimit: 31,
    cs: { selector: BOOT_CS, base: 0, limit: FLAT_LIMIT, attributes: long ? CODE64 : CODE32 },
    ds: { selector: BOOT_DS, base: 0, limit: FLAT_LIMIT, attributes: DATA32 },
  };
}

/** State after power-on or INIT: Intel SDM volume 3, section 10.1.1. */
export function resetState(): InitialCpuState {
  return {
    mode: 'real16',
    rip: 0xfff0,
    rsi: 0,
    rbx: 0,
    rsp: 0,
    cr0: 0x60000010,
    cr3: 0,
    cr4: 0,
    efer: 0,
    gdtBase: 0,
    gdtLimit: 0xffff,
    cs: { selector: 0xf000, base: 0xffff0000, limit: 0xffff, attributes: 0x009b },
    ds: { selector: 0, base: 0, limit: 0xffff, attributes: 0x0093 },
  };
}
