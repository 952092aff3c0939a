/** The I/O APIC between the board's form and the kernel's (`struct kvm_ioapic_state`). */
import type { DeviceState } from '../../machine/interfaces.ts';
import type { KVM_IOAPIC_STATE } from '../layouts.ts';
import type { Value } from '../struct.ts';

export type KernelIoApic = Value<typeof KVM_IOAPIC_STATE>;

type Fields = { select: number; apicId: number; lines: number; low: number[]; high: number[] };

const IOAPIC_BASE = 0xfec00000n;
const LEVEL = 1 << 15;

export function ioApicToKernel(state: DeviceState): KernelIoApic {
  const s = state.fields as unknown as Fields;
  return {
    base_address: IOAPIC_BASE,
    ioregsel: s.select,
    id: s.apicId,
    // What the kernel would deliver anew: levels. Edges have been delivered when they came.
    irr: s.low.reduce((irr, low, pin) => irr | (low & LEVEL ? s.lines & (1 << pin) : 0), 0) >>> 0,
    pad: 0,
    redirtbl: s.low.map((low, pin) => (BigInt(s.high[pin]! >>> 0) << 32n) | BigInt(low >>> 0)),
  };
}

/** @param lines levels of the inputs, a bit each, which the kernel does not tell */
export function ioApicFromKernel(k: KernelIoApic, before: DeviceState, lines: number): DeviceState {
  return {
    version: before.version,
    fields: {
      select: k.ioregsel & 0xff,
      apicId: k.id & 15,
      lines: lines & 0xffffff,
      low: k.redirtbl.map((entry) => Number(entry & 0xffffffffn)),
      high: k.redirtbl.map((entry) => Number(entry >> 32n)),
    },
  };
}
