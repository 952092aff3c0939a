/** Firmware configuration device, by QEMU's published interface (docs/specs/fw_cfg). */
import type { Device, DeviceState, GuestMemory, IoHandler } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';

export const FW_CFG = {
  signature: 0x00,
  id: 0x01,
  uuid: 0x02,
  ramSize: 0x03,
  nographic: 0x04,
  cpuCount: 0x05,
  machineId: 0x06,
  kernelAddress: 0x07,
  kernelSize: 0x08,
  kernelCommandLine: 0x09,
  initrdAddress: 0x0a,
  initrdSize: 0x0b,
  bootDevice: 0x0c,
  numa: 0x0d,
  bootMenu: 0x0e,
  maxCpus: 0x0f,
  kernelEntry: 0x10,
  kernelData: 0x11,
  initrdData: 0x12,
  commandLineAddress: 0x13,
  commandLineSize: 0x14,
  commandLineData: 0x15,
  setupAddress: 0x16,
  setupSize: 0x17,
  setupData: 0x18,
  fileDirectory: 0x19,
  acpiTables: 0x8000,
  smbiosEntries: 0x8001,
  irq0Override: 0x8002,
  e820Table: 0x8003,
  hpet: 0x8004,
  firstFile: 0x20,
} as const;

/** Bit 0: traditional interface; bit 1: DMA. */
const ID_FEATURES = 3;
const DMA = { error: 1, read: 2, skip: 4, select: 8, write: 16 } as const;
const DMA_SIGNATURE = new Uint8Array([0x51, 0x45, 0x4d, 0x55, 0x20, 0x43, 0x46, 0x47]);
const MAX_FILES = 0x1000;
const NAME_LENGTH = 56;
const CHUNK = 65536;

export class FwCfg implements Device {
  readonly type = 'fw_cfg_io';
  readonly id: string;
  /** Port 510h: 16-bit selector; 511h: data, a byte at a time. */
  readonly ports: IoHandler;
  /** Port 514h: 64-bit big-endian DMA address, high half first. */
  readonly dma: IoHandler;

  private readonly memory: GuestMemory;
  private readonly items = new Map<number, Uint8Array>();
  private readonly names = new Map<string, number>();
  private fill: (() => void) | null = null;
  private readonly generators = new Map<number, () => Uint8Array>();
  private readonly state = new StateBlock(
    'fw_cfg',
    1,
    () => ({
      selector: 0,
      offset: 0,
      dmaHigh: 0,
    }),
    { selector: 0xffff, offset: 0xffffffff, dmaHigh: 0xffffffff },
  );

  constructor(memory: GuestMemory, id = 'fw_cfg') {
    this.id = id;
    this.memory = memory;
    this.setItem(FW_CFG.signature, new TextEncoder().encode('QEMU'));
    this.setNumber(FW_CFG.id, ID_FEATURES, 4);
    this.rebuildDirectory();
    this.ports = {
      read: (offset) => (offset === 1 ? this.readByte() : 0),
      write: (offset, size, value) => {
        if (offset === 0 && size === 2) this.select(value);
      },
    };
    this.dma = {
      read: (offset, size) => this.readSignature(offset, size),
      write: (offset, size, value) => this.writeDma(offset, size, value),
    };
  }

  setItem(key: number, data: Uint8Array): void {
    this.items.set(key, data);
  }

  /** Little-endian number, as the numeric items have it. */
  setNumber(key: number, value: number, size: 2 | 4 | 8): void {
    const data = new Uint8Array(8);
    new DataView(data.buffer).setBigUint64(0, BigInt(value), true);
    this.setItem(key, data.subarray(0, size));
  }

  /** Adds or replaces a named file. @throws Error on a name that does not fit the directory */
  setFile(name: string, data: Uint8Array): void {
    if (name.length === 0 || name.length >= NAME_LENGTH || !/^[\x21-\x7e]+$/.test(name)) {
      throw new Error(`fw_cfg: "${name}" is not a usable file name (1 to 55 printable characters)`);
    }
    if (!this.names.has(name) && this.names.size >= MAX_FILES) {
      throw new Error(`fw_cfg: more than ${MAX_FILES} files`);
    }
    const key = this.names.get(name) ?? FW_CFG.firstFile + this.names.size;
    this.names.set(name, key);
    this.items.set(key, data);
    this.rebuildDirectory();
  }

  /**
   * Adds a file whose contents depend on how firmware has set the board up: it is made anew
   * whenever the file is selected. @param make always returns the same number of bytes
   */
  setGeneratedFile(name: string, make: () => Uint8Array): void {
    this.setFile(name, make());
    this.generators.set(this.names.get(name)!, make);
  }

  /** What is filled in only when somebody looks: guests that are started directly never do. */
  fillLater(fill: () => void): void {
    this.fill = fill;
  }

  private fillNow(): void {
    const { fill } = this;
    this.fill = null;
    fill?.();
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

  /** What is being read was made when it was selected: it is made again by a board that is set up like that one. */
  afterLoad(): void {
    this.fillNow();
    const key = this.state.value.selector;
    const make = this.generators.get(key);
    if (make !== undefined) this.items.set(key, make());
  }

  /** Count, then per file: size, selector (big-endian), 2 reserved bytes, name. */
  private rebuildDirectory(): void {
    const data = new Uint8Array(4 + this.names.size * 64);
    const view = new DataView(data.buffer);
    view.setUint32(0, this.names.size);
    let at = 4;
    for (const [name, key] of [...this.names].sort(([a], [b]) => (a < b ? -1 : 1))) {
      view.setUint32(at, this.items.get(key)!.length);
      view.setUint16(at + 4, key);
      data.set(new TextEncoder().encode(name), at + 8);
      at += 64;
    }
    this.items.set(FW_CFG.fileDirectory, data);
  }

  private select(key: number): void {
    this.fillNow();
    this.state.value.selector = key & 0xffff;
    this.state.value.offset = 0;
    const make = this.generators.get(key & 0xffff);
    if (make !== undefined) this.items.set(key & 0xffff, make());
  }

  private current(): Uint8Array | undefined {
    // Bit 14 asked for write access in old versions; bit 15 is part of the key.
    return this.items.get(this.state.value.selector & 0xbfff);
  }

  private readByte(): number {
    const s = this.state.value;
    const item = this.current();
    if (item === undefined || s.offset >= item.length) return 0;
    return item[s.offset++]!;
  }

  private readSignature(offset: number, size: number): number {
    let value = 0;
    // Big-endian register: the first byte of the signature is the most significant one, and
    // a little-endian machine sees it at the lowest address.
    for (let i = 0; i < size; i++) value |= DMA_SIGNATURE[(offset + i) & 7]! << (8 * i);
    return value >>> 0;
  }

  private writeDma(offset: number, size: number, value: number): void {
    if (size !== 4) return;
    const s = this.state.value;
    if (offset === 0) {
      s.dmaHigh = swap32(value);
    } else if (offset === 4) {
      const address = s.dmaHigh * 2 ** 32 + swap32(value);
      s.dmaHigh = 0;
      if (address <= Number.MAX_SAFE_INTEGER - 16) this.runDma(address);
    }
  }

  /** The descriptor: control, length (32 bits each), address (64 bits), all big-endian. */
  private runDma(descriptor: number): void {
    const raw = new Uint8Array(16);
    this.memory.readBytes(descriptor, raw);
    const view = new DataView(raw.buffer);
    const control = view.getUint32(0);
    const length = view.getUint32(4);
    const address = Number(view.getBigUint64(8));
    let failed = false;
    if ((control & DMA.select) !== 0) this.select(control >>> 16);
    if ((control & DMA.read) !== 0) {
      failed = address > Number.MAX_SAFE_INTEGER - length;
      if (!failed) this.dmaRead(address, length);
    } else if ((control & DMA.write) !== 0) {
      // No item is writable.
      failed = true;
    } else if ((control & DMA.skip) !== 0) {
      this.advance(length);
    }
    view.setUint32(0, failed ? DMA.error : 0);
    this.memory.writeBytes(descriptor, raw.subarray(0, 4));
  }

  /** Beyond an item's end there are zeros. */
  private dmaRead(address: number, length: number): void {
    const item = this.current();
    const { offset } = this.state.value;
    const present = Math.min(length, Math.max(0, (item?.length ?? 0) - offset));
    if (item !== undefined && present !== 0) {
      this.memory.writeBytes(address, item.subarray(offset, offset + present));
    }
    const zeros = new Uint8Array(Math.min(CHUNK, length - present));
    for (let done = present; done < length; done += CHUNK) {
      this.memory.writeBytes(address + done, zeros.subarray(0, Math.min(CHUNK, length - done)));
    }
    this.advance(length);
  }

  private advance(length: number): void {
    const s = this.state.value;
    s.offset = Math.min(0xffffffff, s.offset + length);
  }
}

function swap32(value: number): number {
  return (((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
}
