/** Standard VGA on PCI (QEMU's `VGA`): registers, planes and the Bochs display interface. */
import type {
  DeviceState,
  DisplaySource,
  GraphicsScreen,
  IoHandler,
  MappedRegion,
  MmioBus,
  Picture,
  PortBus,
  TextScreen,
} from '../../machine/interfaces.ts';
import { PciDevice } from '../pci.ts';
import { StateBlock } from '../state.ts';
import { VgaPlanes } from './planes.ts';
import { VBE, VBE_ENABLE, VgaRegisters, vgaPowerOn } from './registers.ts';
import { graphicsOf, pictureOf, textOf } from './render.ts';

/** Bytes of video memory: a power of two from 1 MiB up. */
export const VGA_MEMORY = 2 ** 24;
const WINDOW = 0xa0000;
const WINDOW_SIZE = 0x20000;
const VBE_PORT = 0x1ce;
/** In the memory-mapped registers: ports 3C0h to 3DFh, and the Bochs registers. */
const MMIO = { size: 0x1000, ports: 0x400, portsEnd: 0x420, vbe: 0x500, vbeEnd: 0x516 } as const;

export type VgaWiring = {
  memory: MmioBus;
  ports: PortBus;
  /** Video memory in the shared buffer. */
  bytes: Uint8Array;
  /** Puts video memory, from `at` on, where the CPU reaches it without a detour. */
  mapMemory: (base: number, size: number, at: number) => MappedRegion;
  /** Size of the option ROM, a power of two, and what puts it at an address; null without one. */
  rom: { size: number; map: (base: number) => MappedRegion } | null;
};

export class Vga extends PciDevice implements DisplaySource {
  readonly type = 'VGA';

  private readonly wiring: VgaWiring;
  private readonly registers: VgaRegisters;
  private readonly planes: VgaPlanes;
  private readonly state: StateBlock<ReturnType<typeof vgaPowerOn>>;
  private window: { base: number; at: number; mapping: MappedRegion } | null = null;

  constructor(wiring: VgaWiring, id = 'vga') {
    super(id, { vendor: 0x1234, device: 0x1111, revision: 2, classCode: 0x030000, subsystemVendor: 0x1af4, subsystem: 0x1100 });
    this.wiring = wiring;
    this.state = new StateBlock(id, 1, vgaPowerOn, {
      misc: 255,
      feature: 255,
      status: 255,
      seqIndex: 7,
      graphicsIndex: 15,
      crtcIndex: 255,
      attributeIndex: 63,
      dacMask: 255,
      dacRead: 255,
      dacWrite: 255,
      dacStep: 2,
      vbeIndex: 0xffff,
      vbe: 0xffff,
    });
    const { bytes } = wiring;
    this.planes = new VgaPlanes(this.state.value, bytes);
    this.registers = new VgaRegisters(this.state.value, bytes.length, {
      windowChanged: () => this.followWindow(),
      modeSet: (clear) => {
        if (clear) this.clearScreen();
      },
    });
    this.addBar(0, {
      kind: 'mem32',
      size: bytes.length,
      prefetchable: true,
      name: 'vga.vram',
      handler: NOTHING,
      map: (base) => wiring.mapMemory(base, bytes.length, 0),
    });
    this.addBar(2, { kind: 'mem32', size: MMIO.size, name: 'vga.mmio', handler: this.mmio() });
    if (wiring.rom !== null) this.addRom(wiring.rom.size, wiring.rom.map);
    this.addPorts();
    wiring.memory.addMmio(WINDOW, WINDOW_SIZE, this.windowHandler(), 'vga-lowmem');
  }

  text(): TextScreen | null {
    return textOf({ s: this.state.value, bytes: this.wiring.bytes });
  }

  graphics(): GraphicsScreen | null {
    return graphicsOf(this.state.value);
  }

  picture(): Picture {
    return pictureOf({ s: this.state.value, bytes: this.wiring.bytes });
  }

  protected override extraState() {
    return {
      save: (): DeviceState => this.state.save(),
      load: (state: DeviceState): void => this.state.load(state),
    };
  }

  protected override onReset(): void {
    this.state.reset();
    this.followWindow();
  }

  /** @throws Error for a mode that could not have been set */
  protected override onLoad(): void {
    const { vbe } = this.state.value;
    const shown = this.registers.bytesPerLine(vbe[VBE.width]!) * vbe[VBE.height]!;
    const enabled = (vbe[VBE.enable]! & VBE_ENABLE.enabled) !== 0;
    if (enabled && shown > this.wiring.bytes.length) throw new Error(`${this.id}: field "vbe" is a mode beyond the video memory`);
    this.followWindow();
  }

  private addPorts(): void {
    const { ports } = this.wiring;
    const bytewise = (base: number, count: number): void => {
      ports.register(
        base,
        count,
        {
          read: (offset) => this.registers.read(base + offset),
          write: (offset, _size, value) => this.registers.write(base + offset, value & 0xff),
        },
        'vga',
        { maxSize: 1 },
      );
    };
    bytewise(0x3b4, 2);
    bytewise(0x3ba, 1);
    bytewise(0x3c0, 16);
    bytewise(0x3d4, 2);
    bytewise(0x3da, 1);
    // Index, then data, as words; the data register answers at 1CFh and at 1D0h.
    const s = this.state.value;
    ports.register(
      VBE_PORT,
      3,
      {
        read: (offset, size) => {
          const value = offset === 0 ? s.vbeIndex : this.registers.readVbe(s.vbeIndex);
          return size === 1 ? value & 0xff : value;
        },
        write: (offset, size, value) => {
          if (size !== 2) return;
          if (offset === 0) s.vbeIndex = value & 0xffff;
          else this.registers.writeVbe(s.vbeIndex, value & 0xffff);
        },
      },
      'vbe',
      { maxSize: 2 },
    );
  }

  private mmio(): IoHandler {
    return {
      read: (offset, size) => {
        if (offset >= MMIO.vbe && offset < MMIO.vbeEnd) {
          const value = this.registers.readVbe((offset - MMIO.vbe) >> 1);
          return (offset & 1) !== 0 ? value >> 8 : size === 1 ? value & 0xff : value;
        }
        if (offset < MMIO.ports || offset >= MMIO.portsEnd) return 0;
        let value = 0;
        for (let i = 0; i < size; i++) {
          value |= this.registers.read(0x3c0 + offset - MMIO.ports + i) << (8 * i);
        }
        return value;
      },
      write: (offset, size, value) => {
        if (offset >= MMIO.vbe && offset < MMIO.vbeEnd) {
          if (size === 2 && (offset & 1) === 0) {
            this.registers.writeVbe((offset - MMIO.vbe) >> 1, value & 0xffff);
          }
        } else if (offset >= MMIO.ports && offset < MMIO.portsEnd) {
          for (let i = 0; i < size; i++) {
            this.registers.write(0x3c0 + offset - MMIO.ports + i, (value >>> (8 * i)) & 0xff);
          }
        }
      },
    };
  }

  private windowHandler(): IoHandler {
    const { planes } = this;
    return {
      collectsWrites: true,
      read: (offset, size) => {
        let value = 0;
        for (let i = 0; i < size; i++) value |= planes.read(offset + i) << (8 * i);
        return value;
      },
      write: (offset, size, value) => {
        for (let i = 0; i < size; i++) planes.write(offset + i, (value >>> (8 * i)) & 0xff);
      },
    };
  }

  /** While the window is a plain view of memory, the CPU gets at it directly. */
  private followWindow(): void {
    const { linear } = this.planes;
    const { window } = this;
    if (window !== null && linear !== null && window.base === linear.base && window.at === linear.at) {
      return;
    }
    if (window === null && linear === null) return;
    window?.mapping.remove();
    this.window = null;
    if (linear === null || linear.at + linear.size > this.wiring.bytes.length) return;
    const { base, size, at } = linear;
    this.window = { base, at, mapping: this.wiring.mapMemory(base, size, at) };
  }

  private clearScreen(): void {
    const { vbe } = this.state.value;
    const bytes = vbe[VBE.height]! * this.registers.bytesPerLine(vbe[VBE.virtualWidth]!);
    this.wiring.bytes.fill(0, 0, bytes);
  }
}

/** The bar's memory is reached directly. */
const NOTHING: IoHandler = { read: () => 0xff, write: () => undefined };
