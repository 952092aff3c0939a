/**
 * The pair of 8259As between the board's form and the kernel's (`struct kvm_pic_state`).
 * The kernel knows no single mode, and begins initialised; both are as firmware leaves them.
 */
import type { ChipState } from '../../devices/intc/i8259.ts';
import type { DeviceState } from '../../machine/interfaces.ts';
import type { KVM_PIC_STATE } from '../layouts.ts';
import type { Value } from '../struct.ts';

export type KernelPic = Value<typeof KVM_PIC_STATE>;

/** ELCR bits that exist: not those of the timer, the keyboard, the cascade, the clock and the coprocessor. */
/** The slave's output at the master. */
const CASCADE = 4;

const ELCR_MASKS = [0xf8, 0xde] as const;

/** @returns master and slave */
export function picToKernel(state: DeviceState): [KernelPic, KernelPic] {
  const { master, slave } = state.fields as unknown as { master: ChipState; slave: ChipState };
  return [chipToKernel(master, ELCR_MASKS[0]), chipToKernel(slave, ELCR_MASKS[1])];
}

/**
 * @param before the board's state, for what the kernel does not keep
 * @param levels of the inputs of both, a bit each
 */
export function picFromKernel(
  [master, slave]: readonly [KernelPic, KernelPic],
  before: DeviceState,
  levels: number,
): DeviceState {
  const old = before.fields as unknown as { master: ChipState; slave: ChipState };
  return {
    version: before.version,
    fields: {
      master: chipFromKernel(master, old.master, levels, CASCADE),
      slave: chipFromKernel(slave, old.slave, levels >> 8, 0),
    },
  };
}

function chipToKernel(s: ChipState, elcrMask: number): KernelPic {
  return {
    last_irr: s.lines,
    irr: s.irr,
    imr: s.imr,
    isr: s.isr,
    priority_add: (s.lowest + 1) & 7,
    irq_base: s.vectorBase,
    read_reg_select: Number(s.readIsr),
    poll: Number(s.poll),
    special_mask: Number(s.specialMask),
    // The kernel's steps: 0 ready, 1 to 3 waiting for words 2 to 4.
    init_state: Math.max(0, s.initStep - 1),
    auto_eoi: Number(s.autoEoi),
    rotate_on_auto_eoi: Number(s.rotateOnAutoEoi),
    special_fully_nested_mode: Number(s.fullyNested),
    init4: Number(s.needIcw4),
    elcr: s.elcr,
    elcr_mask: elcrMask,
  };
}

/** @param inner inputs that the chips drive themselves */
function chipFromKernel(k: KernelPic, old: ChipState, levels: number, inner: number): ChipState {
  return {
    lines: (k.last_irr & inner) | (levels & 0xff & ~inner),
    irr: k.irr,
    imr: k.imr,
    isr: k.isr,
    lowest: (k.priority_add - 1) & 7,
    vectorBase: k.irq_base,
    readIsr: k.read_reg_select !== 0,
    poll: k.poll !== 0,
    specialMask: k.special_mask !== 0,
    initStep: stepFromKernel(k, old),
    autoEoi: k.auto_eoi !== 0,
    rotateOnAutoEoi: k.rotate_on_auto_eoi !== 0,
    fullyNested: k.special_fully_nested_mode !== 0,
    needIcw4: k.init4 !== 0,
    single: old.single,
    elcr: k.elcr,
  };
}

/** A chip that waits for its first word looks ready to the kernel: it is still waiting if nothing has been set up. */
function stepFromKernel(k: KernelPic, old: ChipState): number {
  if (k.init_state > 0) return Math.min(4, k.init_state + 1);
  return old.initStep === 1 && k.irq_base === 0 ? 1 : 0;
}
