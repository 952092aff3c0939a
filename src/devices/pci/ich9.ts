/** South bridge of the Q35: Intel I/O Controller Hub 9 (316972), LPC interface, section 13. */
import type { IoHandler, IrqLine, MappedRegion, PortBus } from '../../machine/interfaces.ts';
import { type PciBus, PciDevice } from '../pci.ts';

const PM_BASE = 0x40;
const ACPI_CONTROL = 0x44;
const ACPI_ENABLE = 0x80;
/** Routing of PIRQ A to D and E to H to the ISA interrupts. */
const PIRQ_ROUTE = [0x60, 0x68] as const;
const ROUTE_OFF = 0x80;
const ROUTABLE = 0xdef8;
const ROOT_COMPLEX_BASE = 0xf0;
const PM_SIZE = 128;
/** I/O APIC input of PIRQ A; the others follow. */
export const FIRST_PIRQ_INPUT = 16;

/** Offsets in the power management ports (13.8.3). */
const PM = { gpeStatus: 0x20, gpeEnable: 0x28, smiEnable: 0x30, smiEnableEnd: 0x34 } as const;
/** SMI_EN: SMIs at all, and those by the APM control port. */
const SMI = { global: 1 << 0, apm: 1 << 5 } as const;
/** Bytes of the general-purpose event block: status, then enable. */
export const ICH9_GPE = { offset: PM.gpeStatus, length: 16 } as const;

/** What the bridge needs of the board. */
export type Ich9Wiring = {
  bus: PciBus;
  ports: PortBus;
  /** Sixteen ISA interrupts, of which those are driven that something is routed to. */
  isa: readonly IrqLine[];
  /** Inputs of the I/O APIC for PIRQ A to H. */
  inputs: readonly IrqLine[];
  /** Registers of the fixed hardware, and of its events. */
  pm: IoHandler;
  gpe: IoHandler;
  /** There is a system management mode; without, firmware finds it set up already. */
  smm: boolean;
};

/** Function 31:0. */
export class Ich9Lpc extends PciDevice {
  readonly type = 'ICH9-LPC';
  private readonly wiring: Ich9Wiring;
  private readonly registers: IoHandler;
  private mapping: MappedRegion | null = null;
  private mappedAt = -1;

  constructor(wiring: Ich9Wiring, id = 'ich9-lpc') {
    super(id, {
      vendor: 0x8086,
      device: 0x2918,
      revision: 2,
      classCode: 0x060100,
      multifunction: true,
      subsystemVendor: 0x1af4,
      subsystem: 0x1100,
    });
    this.wiring = wiring;
    this.setInitial(0x04, [0x07, 0x00, 0x00, 0x02]);
    if (!wiring.smm) this.setInitial(SMI_ENABLE_AT, [SMI.global | SMI.apm]);
    this.setInitial(PM_BASE, [1, 0, 0, 0]);
    this.writable.set([0x80, 0xff], PM_BASE);
    this.writable[ACPI_CONTROL] = 0x87;
    for (const base of PIRQ_ROUTE) {
      this.setInitial(base, [ROUTE_OFF, ROUTE_OFF, ROUTE_OFF, ROUTE_OFF]);
      for (let i = 0; i < 4; i++) this.writable[base + i] = 0x8f;
    }
    this.writable.set([0x01, 0xc0, 0xff, 0xff], ROOT_COMPLEX_BASE);
    // SMI_EN is kept where the chip has nothing, so that it is reset, saved and loaded.
    this.registers = {
      read: (offset, size) => this.readPm(offset, size),
      write: (offset, size, value) => this.writePm(offset, size, value),
    };
    wiring.bus.onPirq = () => this.route();
  }

  /** Do writes to the APM control port raise SMIs? */
  get raisesSmi(): boolean {
    const wanted = SMI.global | SMI.apm;
    return this.wiring.smm && (this.config[SMI_ENABLE_AT]! & wanted) === wanted;
  }

  /** Port of the power management registers, or 0. */
  get pmBase(): number {
    return this.configRead(PM_BASE, 2) & 0xff80;
  }

  protected override onConfigWrite(): void {
    this.place();
    this.route();
  }

  protected override onReset(): void {
    this.place();
    this.route();
  }

  protected override onLoad(): void {
    this.place();
    this.route();
  }

  /** The bus has four wires: slots up to 24 use PIRQ E to H, the chip's own functions A to D. */
  private route(): void {
    const { bus, isa, inputs } = this.wiring;
    let levels = 0;
    for (let pirq = 0; pirq < 8; pirq++) {
      const level = bus.level(pirq);
      const route = this.config[PIRQ_ROUTE[pirq >> 2]! + (pirq & 3)]!;
      if ((route & ROUTE_OFF) === 0 && level) levels |= 1 << (route & 15);
      inputs[pirq]!.set(level);
    }
    for (let irq = 0; irq < 16; irq++) {
      if ((ROUTABLE & (1 << irq)) !== 0) isa[irq]!.set((levels & (1 << irq)) !== 0);
    }
  }

  private place(): void {
    const { pmBase } = this;
    const on = (this.config[ACPI_CONTROL]! & ACPI_ENABLE) !== 0 && pmBase !== 0;
    const at = on ? pmBase : -1;
    if (at === this.mappedAt) return;
    this.mapping?.remove();
    this.mapping = at < 0 ? null : this.wiring.ports.register(at, PM_SIZE, this.registers, 'acpi-pm');
    this.mappedAt = at;
  }

  private readPm(offset: number, size: number): number {
    const { pm } = this.wiring;
    if (offset < PM.gpeStatus) return pm.read(offset, size);
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.readPmByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  private readPmByte(at: number): number {
    const { gpe } = this.wiring;
    if (at < PM.gpeStatus + 2) return gpe.read(at - PM.gpeStatus, 1);
    if (at >= PM.gpeEnable && at < PM.gpeEnable + 2) return gpe.read(at - PM.gpeEnable + 2, 1);
    if (at >= PM.smiEnable && at < PM.smiEnableEnd) return this.config[SMI_ENABLE_AT + at - PM.smiEnable]!;
    return 0;
  }

  private writePm(offset: number, size: number, value: number): void {
    if (offset < PM.gpeStatus) return this.wiring.pm.write(offset, size, value);
    for (let i = 0; i < size; i++) this.writePmByte(offset + i, (value >>> (8 * i)) & 0xff);
  }

  private writePmByte(at: number, value: number): void {
    const { gpe } = this.wiring;
    if (at >= PM.gpeStatus && at < PM.gpeStatus + 2) gpe.write(at - PM.gpeStatus, 1, value);
    else if (at >= PM.gpeEnable && at < PM.gpeEnable + 2) gpe.write(at - PM.gpeEnable + 2, 1, value);
    else if (at >= PM.smiEnable && at < PM.smiEnableEnd) {
      this.config[SMI_ENABLE_AT + at - PM.smiEnable] = value;
    }
  }
}

/** Place of SMI_EN in configuration space, where the chip has nothing. */
const SMI_ENABLE_AT = 0xe0 + 0x0c;

/** How the Q35 boards wire INTx of a slot to PIRQ lines (0 to 7 for A to H); the DSDT's _PRT says the same. */
export function q35PirqOf(slot: number, pin: number): number {
  return slot < 25 ? 4 + ((slot + pin) & 3) : pin;
}
