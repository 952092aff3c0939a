/** South bridge functions: 82371SB (PIIX3, order 290550) and 82371AB (PIIX4, order 290562). */
import type { IoHandler, IrqLine, MappedRegion, PortBus } from '../../machine/interfaces.ts';
import { type PciBus, PciDevice } from '../pci.ts';

const PIRQ_ROUTE = 0x60;
const ROUTE_OFF = 0x80;
/** ISA interrupts that a PIRQ may be routed to (82371SB, section 2.2.7). */
const ROUTABLE = 0xdef8;

/** ISA bridge: routes PIRQ A to D to the ISA interrupts. */
export class Piix3 extends PciDevice {
  readonly type = 'PIIX3';
  private readonly pci: PciBus;
  private readonly isa: readonly IrqLine[];

  /** @param isa sixteen lines, of which only those that are routed to are driven */
  constructor(bus: PciBus, isa: readonly IrqLine[], id = 'piix3') {
    super(id, {
      vendor: 0x8086,
      device: 0x7000,
      classCode: 0x060100,
      multifunction: true,
      subsystemVendor: 0x1af4,
      subsystem: 0x1100,
    });
    this.pci = bus;
    this.isa = isa;
    this.setInitial(0x04, [0x07, 0x00, 0x00, 0x02]);
    this.setInitial(0x4c, [0x4d, 0x00, 0x03]);
    this.setInitial(PIRQ_ROUTE, [ROUTE_OFF, ROUTE_OFF, ROUTE_OFF, ROUTE_OFF]);
    for (let i = 0; i < 4; i++) this.writable[PIRQ_ROUTE + i] = 0x8f;
    for (const at of [0x4c, 0x4e, 0x4f, 0x69, 0x6a, 0x70, 0x71]) this.writable[at] = 0xff;
    bus.onPirq = () => this.route();
  }

  protected override onConfigWrite(offset: number, size: number): void {
    if (offset + size > PIRQ_ROUTE && offset < PIRQ_ROUTE + 4) this.route();
  }

  protected override onReset(): void {
    this.route();
  }

  protected override onLoad(): void {
    this.route();
  }

  /** Several PIRQs may share an interrupt, so all levels are worked out anew. */
  private route(): void {
    let levels = 0;
    for (let pirq = 0; pirq < 4; pirq++) {
      const route = this.config[PIRQ_ROUTE + pirq]!;
      if ((route & ROUTE_OFF) === 0 && this.pci.level(pirq)) levels |= 1 << (route & 15);
    }
    for (let irq = 0; irq < 16; irq++) {
      if ((ROUTABLE & (1 << irq)) !== 0) this.isa[irq]!.set((levels & (1 << irq)) !== 0);
    }
  }
}

const PM_BASE = 0x40;
const PM_ENABLE = 0x80;
const SMBUS_BASE = 0x90;
/** DEVACTB (82371AB, 7.2.8); bit 25 enables SMIs by writes to the APM control port. */
const DEVICE_ACTIVITY_B = 0x58;
const APM_SMI_ENABLE = 0x02;

/** Power management function: says where the ACPI registers lie. */
export class Piix4Pm extends PciDevice {
  readonly type = 'PIIX4_PM';
  private readonly ports: PortBus;
  private readonly registers: IoHandler;
  private mapping: MappedRegion | null = null;
  private mappedAt = -1;
  private readonly smm: boolean;

  /** @param smm there is a system management mode; without, firmware finds it set up already */
  constructor(ports: PortBus, registers: IoHandler, smm = true, id = 'piix4-pm') {
    super(id, {
      vendor: 0x8086,
      device: 0x7113,
      revision: 3,
      classCode: 0x068000,
      subsystemVendor: 0x1af4,
      subsystem: 0x1100,
      interruptPin: 1,
    });
    this.ports = ports;
    this.registers = registers;
    this.smm = smm;
    if (!smm) this.setInitial(DEVICE_ACTIVITY_B + 3, [APM_SMI_ENABLE]);
    this.setInitial(0x06, [0x80, 0x02]);
    this.setInitial(0x3c, [9]);
    this.setInitial(PM_BASE, [1, 0, 0, 0]);
    this.setInitial(SMBUS_BASE, [1, 0, 0, 0]);
    this.writable.set([0xc0, 0xff], PM_BASE);
    this.writable.set([0xf0, 0xff], SMBUS_BASE);
    this.writable[PM_ENABLE] = 1;
    for (let at = 0x58; at < 0x60; at++) this.writable[at] = 0xff;
    this.writable[0xd2] = 0x0f;
  }

  /** Do writes to the APM control port raise SMIs? */
  get raisesSmi(): boolean {
    return this.smm && (this.config[DEVICE_ACTIVITY_B + 3]! & APM_SMI_ENABLE) !== 0;
  }

  protected override onConfigWrite(): void {
    this.place();
  }

  protected override onReset(): void {
    this.place();
  }

  protected override onLoad(): void {
    this.place();
  }

  private place(): void {
    const base = (this.config[PM_BASE]! & 0xc0) | (this.config[PM_BASE + 1]! << 8);
    const at = (this.config[PM_ENABLE]! & 1) !== 0 && base !== 0 ? base : -1;
    if (at === this.mappedAt) return;
    this.mapping?.remove();
    this.mapping = at < 0 ? null : this.ports.register(at, 64, this.registers, 'acpi-pm');
    this.mappedAt = at;
  }
}
