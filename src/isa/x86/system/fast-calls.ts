/** SYSCALL, SYSRET, SYSENTER, SYSEXIT: system calls without descriptors. */
import {
  CS,
  EFLAGS,
  IF,
  MSR_CSTAR,
  MSR_LSTAR,
  MSR_SFMASK,
  MSR_STAR,
  MSR_SYSENTER_CS,
  MSR_SYSENTER_EIP,
  MSR_SYSENTER_ESP,
  RF,
  SS,
  VM,
} from '../state.ts';
import { EFER_SCE } from './core.ts';
import type { Core } from './core.ts';
import type { Parts } from './parts.ts';

const RCX = 1;
const RDX = 2;
const RSP = 4;
const R11 = 11;
const CODE64 = 0xa09b;
const CODE32 = 0xc09b;
const DATA = 0xc093;
const RING3 = 3 << 5;
/** All defined flags but RF and VM. */
const RETURNED_FLAGS = 0x3c7fd7;

export function syscall(p: Parts): void {
  const { core, segs } = p;
  if (!(core.efer & EFER_SCE) || !core.isProtected) core.ud();
  const selector = core.get(MSR_STAR + 4) & 0xfffc;
  const flags = core.readFlags();
  core.setReg(RCX, core.pcLow, core.pcHigh);
  if (core.longMode) {
    core.setReg(R11, flags & ~RF, 0);
    const entry = core.code64 ? MSR_LSTAR : MSR_CSTAR;
    core.setPc(core.get(entry), core.get(entry + 4));
    core.writeFlags(flags & ~core.get(MSR_SFMASK) & ~RF);
    segs.setFlat(CS, selector, CODE64);
  } else {
    core.setPc(core.get(MSR_STAR), 0);
    core.set(EFLAGS, core.eflags & ~(IF | VM | RF));
    segs.setFlat(CS, selector, CODE32);
  }
  segs.setFlat(SS, selector + 8, DATA);
  core.cpl = 0;
}

/** @param wide to 64-bit code */
export function sysret(p: Parts, wide: boolean): void {
  const { core, segs } = p;
  if (!(core.efer & EFER_SCE) || !core.isProtected) core.ud();
  core.requireSupervisor();
  const selector = core.get(MSR_STAR + 4) >>> 16;
  // A pc that is not canonical faults at its fetch, in user mode (AMD APM vol. 3).
  core.setPc(core.regLow(RCX), wide ? core.regHigh(RCX) : 0);
  if (core.longMode) core.writeFlags(core.regLow(R11) & RETURNED_FLAGS);
  else core.set(EFLAGS, core.eflags | IF);
  const code = (wide ? selector + 16 : selector) | 3;
  segs.setFlat(CS, code, (wide ? CODE64 : CODE32) | RING3);
  segs.setFlat(SS, (selector + 8) | 3, DATA | RING3);
  core.cpl = 3;
}

/** AMD's processors do not have SYSENTER and SYSEXIT in long mode (APM vol. 2, 6.1.2). */
function requireSysenter(core: Core): void {
  if (core.longMode && core.model.vendor === 'AuthenticAMD') core.ud();
}

export function sysenter(p: Parts): void {
  const { core, segs } = p;
  requireSysenter(core);
  const selector = core.get(MSR_SYSENTER_CS) & 0xfffc;
  if (!core.isProtected && !core.v86) core.gp();
  if (selector === 0) core.gp();
  const wide = core.longMode;
  core.set(EFLAGS, core.eflags & ~(IF | VM | RF));
  segs.setFlat(CS, selector, wide ? CODE64 : CODE32);
  segs.setFlat(SS, selector + 8, DATA);
  core.cpl = 0;
  core.setReg(RSP, core.get(MSR_SYSENTER_ESP), wide ? core.get(MSR_SYSENTER_ESP + 4) : 0);
  core.setPc(core.get(MSR_SYSENTER_EIP), wide ? core.get(MSR_SYSENTER_EIP + 4) : 0);
}

/** @param wide to 64-bit code */
export function sysexit(p: Parts, wide: boolean): void {
  const { core, segs } = p;
  requireSysenter(core);
  const selector = core.get(MSR_SYSENTER_CS) & 0xfffc;
  if (!core.isProtected || selector === 0) core.gp();
  core.requireSupervisor();
  if (wide) requireCanonical(core, RCX);
  if (wide) requireCanonical(core, RDX);
  core.setReg(RSP, core.regLow(RCX), wide ? core.regHigh(RCX) : 0);
  core.setPc(core.regLow(RDX), wide ? core.regHigh(RDX) : 0);
  segs.setFlat(CS, (selector + (wide ? 32 : 16)) | 3, (wide ? CODE64 : CODE32) | RING3);
  segs.setFlat(SS, (selector + (wide ? 40 : 24)) | 3, DATA | RING3);
  core.cpl = 3;
}

function requireCanonical(core: Core, register: number): void {
  if (!core.isCanonical(core.regLow(register), core.regHigh(register))) core.gp();
}
