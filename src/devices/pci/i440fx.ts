/** Host bridge: Intel 82441FX (290549), with configuration mechanism 1 (PCI 3.0, 3.2.2.3.2). */
import type { Device, DeviceState, IoHandler } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { findFunction } from '../pci-bridge.ts';
import { type PciBus, PciDevice, type PciIdentity } from '../pci.ts';

const PAM = 0x59;
const PAM_COUNT = 7;
/** System management RAM control (290549, 3.2.19). */
const SMRAM = 0x72;
const SMRAM_OPEN = 1 << 6;
const SMRAM_LOCK = 1 << 4;
const SMRAM_ENABLE = 1 << 3;
const SMRAM_WRITABLE = 0x78;
/** The only place there is for it: A0000h. */
const SMRAM_SEGMENT_A = 2;

/** What the memory controller makes of a part of the BIOS area. */
export type PamAccess = { base: number; size: number; read: boolean; write: boolean };

/** Where a host bridge has the registers that rule memory below 1 MiB. */
type Places = { pam: number; smram: number };

/** Function 0:0.0. Shadowing of the BIOS area is told to the board by `onPam`. */
export abstract class HostBridge extends PciDevice {
  onPam: ((areas: PamAccess[]) => void) | undefined;
  /** What `smramShows` says may have changed. */
  onSmram: (() => void) | undefined;

  private readonly places: Places;

  constructor(id: string, identity: PciIdentity, places: Places) {
    super(id, identity);
    this.places = places;
    const { pam, smram } = places;
    for (let i = 0; i < PAM_COUNT; i++) this.writable[pam + i] = i === 0 ? 0x30 : 0x33;
    this.writable[smram] = SMRAM_WRITABLE;
    this.setInitial(smram, [SMRAM_SEGMENT_A]);
  }

  /** @param managing the processor is in system management mode @returns whether RAM shows at A0000h to BFFFFh */
  smramShows(managing: boolean): boolean {
    const control = this.config[this.places.smram]!;
    return (control & SMRAM_ENABLE) !== 0 && (managing || (control & SMRAM_OPEN) !== 0);
  }

  /** PAM0's high half rules F0000h to FFFFFh; each nibble of PAM1 to 6 rules 16 KiB from C0000h. */
  pamAreas(): PamAccess[] {
    const { pam } = this.places;
    const areas = [access(0xf0000, 0x10000, this.config[pam]! >> 4)];
    for (let i = 0; i < 12; i++) {
      const nibble = this.config[pam + 1 + (i >> 1)]! >> (4 * (i & 1));
      areas.push(access(0xc0000 + i * 0x4000, 0x4000, nibble));
    }
    return areas;
  }

  protected override onConfigWrite(offset: number, size: number): void {
    const { pam, smram } = this.places;
    if (offset + size > pam && offset < pam + PAM_COUNT) this.onPam?.(this.pamAreas());
    if (offset <= smram && offset + size > smram) this.smramChanged();
  }

  protected override onReset(): void {
    this.onPam?.(this.pamAreas());
    this.smramChanged();
  }

  protected override onLoad(): void {
    this.onPam?.(this.pamAreas());
    this.smramChanged();
  }

  /** Locking closes it for good: until a reset, the register cannot be written. */
  private smramChanged(): void {
    const { smram } = this.places;
    const locked = (this.config[smram]! & SMRAM_LOCK) !== 0;
    if (locked) this.config[smram]! &= ~SMRAM_OPEN;
    this.writable[smram] = locked ? 0 : SMRAM_WRITABLE;
    this.onSmram?.();
  }
}

export class I440Fx extends HostBridge {
  readonly type = 'i440FX';

  constructor(id = 'i440fx') {
    super(
      id,
      { vendor: 0x8086, device: 0x1237, revision: 2, classCode: 0x060000, subsystemVendor: 0x1af4, subsystem: 0x1100 },
      { pam: PAM, smram: SMRAM },
    );
  }
}

function access(base: number, size: number, bits: number): PamAccess {
  return { base, size, read: (bits & 1) !== 0, write: (bits & 2) !== 0 };
}

/** The bridge's ports CF8h to CFFh. */
export class I440FxHost implements Device {
  readonly type = 'i440FX-pcihost';
  readonly id: string;
  readonly ports: IoHandler;

  private readonly bus: PciBus;
  private readonly state = new StateBlock('pcihost', 1, () => ({ address: 0 }), {
    address: 0xffffffff,
  });

  constructor(bus: PciBus, id = 'pcihost') {
    this.id = id;
    this.bus = bus;
    this.ports = {
      read: (offset, size) => this.read(offset, size),
      write: (offset, size, value) => this.write(offset, size, value),
    };
  }

  reset(): void {
    this.state.reset();
  }

  saveState(): DeviceState {
    return this.state.save();
  }

  loadState(state: DeviceState): void {
    this.state.load(state);
  }

  private read(offset: number, size: number): number {
    // The address register answers to whole words only; parts of it are ordinary ports.
    if (offset < 4) return offset === 0 && size === 4 ? this.state.value.address : ones(size);
    const target = this.target();
    return target === undefined ? ones(size) : target.configRead(this.register(offset), size);
  }

  private write(offset: number, size: number, value: number): void {
    if (offset === 0 && size === 4) this.state.value.address = (value & 0x80fffffc) >>> 0;
    else if (offset >= 4) this.target()?.configWrite(this.register(offset), size, value);
  }

  private register(offset: number): number {
    return (this.state.value.address & 0xfc) | (offset & 3);
  }

  private target(): PciDevice | undefined {
    const { address } = this.state.value;
    const enabled = address >>> 31 !== 0;
    const bus = (address >>> 16) & 0xff;
    return enabled ? findFunction(this.bus, bus, (address >>> 8) & 0xff) : undefined;
  }
}

function ones(size: number): number {
  return size === 4 ? 0xffffffff : size === 2 ? 0xffff : 0xff;
}
