/** What to do for each reason for which translated code leaves, by its number. */
import { EXIT_ISA } from '../../../ir/vcpu-block.ts';
import * as L from '../leave.ts';
import { CC_FLAGS, CR0, CS, OP0, OP1, OP2 } from '../state.ts';
import type { Control } from './control.ts';
import { BP, CR0_NE, CR4_OSXMMEXCPT, DB, GP, MF, NO_ERROR_CODE, OF_TRAP, SS_FAULT, XM } from './core.ts';
import type { Core } from './core.ts';
import type { Cpuid } from './cpuid.ts';
import { SOURCE_ICEBP, SOURCE_SOFTWARE } from './exceptions.ts';
import { syscall, sysenter, sysexit, sysret } from './fast-calls.ts';
import { farTransfer } from './far.ts';
import { farReturn, iret } from './iret.ts';
import * as misc from './misc.ts';
import { AS_CURRENT } from './mmu.ts';
import type { Msrs } from './msr.ts';
import type { Parts } from './parts.ts';
import type { Ports } from './ports.ts';
import type { Smm } from './smm.ts';
import type { Strings } from './strings.ts';
import type { XSave } from './xsave.ts';

/** All parts of the system code. */
export interface AllParts extends Parts {
  readonly control: Control;
  readonly msrs: Msrs;
  readonly cpuid: Cpuid;
  readonly ports: Ports;
  readonly strings: Strings;
  readonly xsave: XSave;
  readonly smm: Smm;
  /** x87 error with CR0.NE clear: the board's IRQ 13. */
  fpuError(): void;
}

/** @param arg the exit's argument  @param size operand size in bytes */
export type Handler = (p: AllParts, arg: number, size: number) => void;

/** The exit's pc is the instruction's own, not the next one's. */
export const AT_INSTRUCTION = 1;
/** No single-step trap follows: the handler has delivered an event. */
export const NO_TRAP = 2;
/** TF as it is after the instruction decides: a call of the system must not trap in it, nor the return be missed. */
export const TRAP_BY_NEW_FLAGS = 4;
/** The instruction may have set RF, for the one that it leads to. */
export const KEEPS_RF = 8;
/** A transfer that may change the privilege level or the mode, for traces. */
export const TRANSFERS = 16;

export interface Entry {
  readonly handle: Handler;
  readonly flags: number;
}

export const TABLE: Entry[] = [];

const RCX = 1;

function on(reason: number, handle: Handler, flags = 0): void {
  TABLE[reason - EXIT_ISA] = { handle, flags };
}

/** @param here reason of the side exit, whose pc is the instruction's own; its length is in the argument */
function onBoth(reason: number, here: number, handle: Handler): void {
  on(reason, handle);
  on(here, (p, arg, size) => {
    p.core.movePc(arg & 15);
    handle(p, arg, size);
  });
}

/** Has this exception an error code (always 0 when it does not come from system code)? */
const HAS_ERROR_CODE = (1 << 8) | (0x1f << 10) | (1 << 17);

const field = (arg: number, shift: number, mask: number): number => (arg >> shift) & mask;

// Exceptions and software interrupts.
on(
  L.LEAVE_EXCEPTION,
  ({ core }, arg) => {
    const vector = arg >> 8;
    core.fault(vector, (HAS_ERROR_CODE >> vector) & 1 ? 0 : NO_ERROR_CODE);
  },
  AT_INSTRUCTION,
);
on(
  L.LEAVE_SEGMENT_FAULT,
  ({ core }, arg) => {
    core.fault(field(arg, 8, 7) === 2 ? SS_FAULT : GP, 0);
  },
  AT_INSTRUCTION,
);
on(
  L.LEAVE_FPU_ERROR,
  (p) => {
    if (p.core.get(CR0) & CR0_NE) p.core.fault(MF, NO_ERROR_CODE);
    p.fpuError();
  },
  AT_INSTRUCTION,
);
on(
  L.LEAVE_SIMD_ERROR,
  ({ core }) => {
    if (!(core.cr4 & CR4_OSXMMEXCPT)) core.ud();
    core.fault(XM, NO_ERROR_CODE);
  },
  AT_INSTRUCTION,
);
on(L.LEAVE_SKIP, ({ core }, arg) => core.movePc(arg & 15), AT_INSTRUCTION);
on(
  L.LEAVE_COMPARED,
  ({ core }, arg) => {
    core.setArithmetic(core.get(OP0), CC_FLAGS);
    core.movePc(arg & 15);
  },
  AT_INSTRUCTION,
);
on(L.LEAVE_INT, ({ events }, arg) => events.software((arg >> 8) & 0xff), NO_TRAP);
on(L.LEAVE_INT3, ({ events }) => events.deliver(BP, NO_ERROR_CODE, SOURCE_SOFTWARE), NO_TRAP);
on(
  L.LEAVE_INTO,
  ({ core, events }, arg) => {
    core.movePc(arg & 15);
    events.deliver(OF_TRAP, NO_ERROR_CODE, SOURCE_SOFTWARE);
  },
  AT_INSTRUCTION | NO_TRAP,
);
on(L.LEAVE_INT1, ({ events }) => events.deliver(DB, NO_ERROR_CODE, SOURCE_ICEBP), NO_TRAP);
on(L.LEAVE_SINGLE_STEP, ({ core }, arg) => {
  if (!(arg & (1 << 8))) return;
  core.setPc(core.get(OP0), core.get(OP0 + 4));
  core.branches.taken = core.get(OP2) !== 0;
  core.branches.setPlace(core.get(OP1), core.get(OP1 + 4));
});
on(
  L.LEAVE_BREAKPOINT,
  ({ core, debug }) => {
    if (core.code64) debug.executed(core.pcLow, core.pcHigh);
    debug.executed((core.pcLow + core.segBaseLow(CS)) | 0, 0);
  },
  AT_INSTRUCTION,
);

// Waiting.
on(L.LEAVE_HLT, ({ core }) => misc.halt(core));
on(L.LEAVE_MWAIT, ({ core }) => misc.mwait(core));
on(L.LEAVE_MONITOR, ({ core, mmu }) => {
  core.requireSupervisor();
  if (core.regLow(RCX) !== 0) core.gp();
  mmu.probeRead(core.get(OP0), core.get(OP0 + 4), 1, AS_CURRENT);
});

// Identification, model-specific registers, time.
on(L.LEAVE_CPUID, ({ cpuid }) => cpuid.execute());
on(L.LEAVE_RDMSR, ({ core, msrs }) => {
  core.requireSupervisor();
  if (!msrs.read(core.regLow(1))) core.gp();
  const { low, high } = core;
  core.setReg(0, low, 0);
  core.setReg(2, high, 0);
});
on(L.LEAVE_WRMSR, ({ core, msrs }) => {
  core.requireSupervisor();
  if (!msrs.write(core.regLow(1), core.regLow(0), core.regLow(2))) core.gp();
});
onBoth(L.LEAVE_RDTSC, L.LEAVE_RDTSC_HERE, ({ core }) => misc.readTsc(core, false));
onBoth(L.LEAVE_RDTSCP, L.LEAVE_RDTSCP_HERE, ({ core }) => misc.readTsc(core, true));
// CPUID leaf 0AH tells of no performance counters: there is no valid index, whatever CR4.PCE permits.
on(L.LEAVE_RDPMC, ({ core }) => core.gp());
on(L.LEAVE_RDRAND, ({ core }, arg, size) => misc.random(core, field(arg, 8, 15), size));

// Ports and strings.
on(L.LEAVE_IN, ({ core, ports }, _, size) => ports.input(core.get(OP0) & 0xffff, size));
on(L.LEAVE_OUT, ({ core, ports }, _, size) => ports.output(core.get(OP0) & 0xffff, size));
function stayAtRepeat(core: Core): void {
  core.movePc(-core.insnLength);
  core.returnsWithRf = true;
}
const portString =
  (input: boolean): Handler =>
  ({ core, strings }, arg, size) => {
    const complete = strings.port(input, (arg & 0x100) !== 0, size, field(arg, 9, 3), field(arg, 11, 7));
    if (!complete) stayAtRepeat(core);
  };
on(L.LEAVE_INS, portString(true));
on(L.LEAVE_OUTS, portString(false));
onBoth(L.LEAVE_REP, L.LEAVE_REP_HERE, ({ core, strings }, arg, size) => {
  const complete = strings.repeat(field(arg, 8, 7), (arg & (1 << 11)) !== 0, size, field(arg, 12, 3), field(arg, 14, 7));
  if (!complete) stayAtRepeat(core);
});

// Control and debug registers, translations.
on(L.LEAVE_READ_CR, ({ control }, arg) => control.readTaskPriority(field(arg, 12, 15)));
on(L.LEAVE_WRITE_CR, ({ control }, arg) => control.write(field(arg, 8, 15), field(arg, 12, 15)));
on(L.LEAVE_READ_DR, ({ control }, arg) => control.readDebug(field(arg, 8, 15), field(arg, 12, 15)));
on(L.LEAVE_WRITE_DR, ({ control }, arg) => control.writeDebug(field(arg, 8, 15), field(arg, 12, 15)));
on(L.LEAVE_CLTS, ({ control }) => control.clts());
on(L.LEAVE_LMSW, ({ core, control }) => control.lmsw(core.get(OP0)));
on(L.LEAVE_INVLPG, ({ core, control }) => control.invlpg(core.get(OP0), core.get(OP0 + 4)));
on(L.LEAVE_INVPCID, ({ core, control }) => {
  control.invpcid(core.get(OP0), core.get(OP0 + 4), core.get(OP1), core.get(OP1 + 4));
});
on(L.LEAVE_WBINVD, ({ core }) => core.requireSupervisor());
on(L.LEAVE_XGETBV, ({ control }) => control.xgetbv());
on(L.LEAVE_XSETBV, ({ control }) => control.xsetbv());
on(L.LEAVE_XSAVE, ({ core, xsave }, arg, size) => {
  xsave.execute(field(arg, 8, 15), core.get(OP0), core.get(OP0 + 4), size === 8);
});
on(L.LEAVE_LDMXCSR, ({ core }) => misc.loadMxcsr(core));
on(L.LEAVE_STMXCSR, ({ core }) => core.watchExceptions());

// Descriptor tables and segments.
on(L.LEAVE_LGDT, ({ core, mmu }, _, size) => misc.loadTable(core, mmu, ...misc.GDT, size));
on(L.LEAVE_LIDT, ({ core, mmu }, _, size) => misc.loadTable(core, mmu, ...misc.IDT, size));
on(L.LEAVE_SGDT, ({ core, mmu }) => misc.storeTable(core, mmu, ...misc.GDT));
on(L.LEAVE_SIDT, ({ core, mmu }) => misc.storeTable(core, mmu, ...misc.IDT));
on(L.LEAVE_LLDT, ({ core, segs }) => {
  core.requireSupervisor();
  segs.loadLdt(core.get(OP0) & 0xffff);
});
on(L.LEAVE_LTR, ({ core, segs }) => {
  core.requireSupervisor();
  segs.loadTask(core.get(OP0) & 0xffff);
});
on(L.LEAVE_LAR, ({ core, segs }, arg, size) => segs.lar(core.get(OP0) & 0xffff, field(arg, 8, 15), size));
on(L.LEAVE_LSL, ({ core, segs }, arg, size) => segs.lsl(core.get(OP0) & 0xffff, field(arg, 8, 15), size));
on(L.LEAVE_VERR, ({ core, segs }) => segs.verify(core.get(OP0) & 0xffff, false));
on(L.LEAVE_VERW, ({ core, segs }) => segs.verify(core.get(OP0) & 0xffff, true));
onBoth(L.LEAVE_LOAD_SEG, L.LEAVE_LOAD_SEG_HERE, (p, arg, size) => {
  misc.loadSegment(p, field(arg, 8, 7), p.core.get(OP0), arg & (1 << 11) ? size : 0);
});
on(L.LEAVE_LOAD_FAR, (p, arg, size) => misc.loadFar(p, field(arg, 8, 7), field(arg, 12, 15), size));
on(L.LEAVE_FSGSBASE, ({ core }, arg, size) => misc.fsGsBase(core, field(arg, 8, 3), field(arg, 12, 15), size));

// Transfers.
on(
  L.LEAVE_FAR_JUMP,
  (p, _, size) => {
    farTransfer(p, false, p.core.get(OP0) & 0xffff, p.core.get(OP1), p.core.get(OP1 + 4), size);
  },
  KEEPS_RF | TRANSFERS,
);
on(
  L.LEAVE_FAR_CALL,
  (p, _, size) => {
    farTransfer(p, true, p.core.get(OP0) & 0xffff, p.core.get(OP1), p.core.get(OP1 + 4), size);
  },
  KEEPS_RF | TRANSFERS,
);
on(L.LEAVE_FAR_RET, (p, _, size) => farReturn(p, size, p.core.get(OP0) & 0xffff), TRANSFERS);
on(L.LEAVE_IRET, (p, _, size) => iret(p, size), KEEPS_RF | TRANSFERS);
on(L.LEAVE_SYSCALL, syscall, TRAP_BY_NEW_FLAGS | TRANSFERS);
on(L.LEAVE_SYSRET, (p, _, size) => sysret(p, size === 8), TRAP_BY_NEW_FLAGS | TRANSFERS);
on(L.LEAVE_SYSENTER, sysenter, TRANSFERS);
on(L.LEAVE_SYSEXIT, (p, _, size) => sysexit(p, size === 8), TRANSFERS);
on(
  L.LEAVE_RSM,
  ({ smm, events }) => {
    if (!smm.resume()) events.onShutdown();
  },
  KEEPS_RF | NO_TRAP,
);

// Flags.
on(L.LEAVE_CLI, ({ core }) => misc.cli(core));
onBoth(L.LEAVE_STI, L.LEAVE_STI_HERE, ({ core }) => misc.sti(core));
onBoth(L.LEAVE_POPF, L.LEAVE_POPF_HERE, ({ core }, _, size) => misc.popf(core, size));
on(L.LEAVE_PUSHF_V86, (p, _, size) => misc.pushVirtualFlags(p, size));
onBoth(L.LEAVE_STAC, L.LEAVE_STAC_HERE, ({ core }) => misc.accessFlag(core, true));
onBoth(L.LEAVE_CLAC, L.LEAVE_CLAC_HERE, ({ core }) => misc.accessFlag(core, false));

// Vectors, arithmetic and frames.
on(
  L.LEAVE_MASK_EMPTY,
  ({ core }, arg) => {
    misc.clearVectors(core, arg >> 8);
    core.movePc(arg & 15);
  },
  AT_INSTRUCTION,
);
on(
  L.LEAVE_DIV,
  ({ core }, arg) => {
    misc.divide(core, (arg & 0x100) !== 0);
    core.movePc(arg & 15);
  },
  AT_INSTRUCTION,
);
on(L.LEAVE_BOUND, ({ core, mmu }, _, size) => misc.bound(core, mmu, size));
on(L.LEAVE_ENTER, (p, _, size) => misc.enter(p, size));
