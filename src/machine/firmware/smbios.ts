/** SMBIOS tables: DMTF DSP0134, version 3.0, with the 2.8 entry point beside the 3.0 one. */
import type { CpuTopology } from '../cpu-topology.ts';
import { ByteWriter, fixChecksum } from './bytes.ts';

export type SmbiosOptions = {
  ramSize: number;
  /** RAM below the hole under 4 GiB; the rest starts at 4 GiB. */
  lowRam: number;
  topology: CpuTopology;
  /** 16 bytes in text order, or null for "not set". */
  uuid: Uint8Array | null;
  machine: string;
};

export type SmbiosTables = { entry21: Uint8Array; entry30: Uint8Array; table: Uint8Array };

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const MANUFACTURER = 'Virelay';
/** Size limit of one simulated memory module. */
const MODULE_BYTES = 16 * GIB;

class Builder {
  private readonly out = new ByteWriter();
  private count = 0;
  private largest = 0;

  /** One structure: formatted part, then its strings (6.1.3). */
  add(type: number, handle: number, body: Uint8Array, strings: readonly string[] = []): void {
    const start = this.out.length;
    this.out
      .u8(type, body.length + 4)
      .u16(handle)
      .bytes(body);
    for (const string of strings) this.out.text(string).u8(0);
    this.out.u8(0);
    if (strings.length === 0) this.out.u8(0);
    this.count++;
    this.largest = Math.max(this.largest, this.out.length - start);
  }

  finish(base: number): SmbiosTables {
    const table = this.out.finish();
    return {
      table,
      entry21: entry21(table.length, this.count, this.largest, base),
      entry30: entry30(table.length, base),
    };
  }
}

/** @param base physical address of the structure table */
export function buildSmbios(options: SmbiosOptions, base: number): SmbiosTables {
  const b = new Builder();
  b.add(0, 0x000, biosInformation(), [MANUFACTURER, '1', '01/01/2026']);
  b.add(1, 0x100, systemInformation(options.uuid), [MANUFACTURER, options.machine, '1']);
  b.add(3, 0x300, chassis(), [MANUFACTURER, '1']);
  for (let socket = 0; socket < options.topology.sockets; socket++) {
    b.add(4, 0x400 + socket, processor(options.topology), [`CPU ${socket}`, MANUFACTURER, '1']);
  }
  addMemory(b, options);
  b.add(32, 0x2000, new Uint8Array(7));
  b.add(127, 0x7f00, new Uint8Array(0));
  return b.finish(base);
}

/** 7.1; characteristics: "not supported" bit, extension: virtual machine, UEFI not. */
function biosInformation(): Uint8Array {
  return new ByteWriter().u8(1, 2).u16(0xe800).u8(3, 0).u64(8).u8(0, 0x14, 0, 0, 0xff, 0xff).finish();
}

/** 7.2; the first three fields of a UUID are stored with their bytes swapped (7.2.1). */
function systemInformation(uuid: Uint8Array | null): Uint8Array {
  const id = uuid ?? new Uint8Array(16);
  const order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return new ByteWriter()
    .u8(1, 2, 3, 0)
    .bytes(order.map((i) => id[i]!))
    .u8(6, 0, 0)
    .finish();
}

/** 7.4: type "other", states safe. */
function chassis(): Uint8Array {
  return new ByteWriter().u8(1, 1, 2, 0, 0, 3, 3, 3, 2).u32(0).u8(0, 0, 0, 0, 0).finish();
}

/** 7.5: a socket. Counts are below 256, so that the older fields of a byte have them, too. */
function processor({ cores, threads }: CpuTopology): Uint8Array {
  return new ByteWriter()
    .u8(1, 3, 1, 2)
    .u64(0)
    .u8(3, 0)
    .u16(0)
    .u16(2000)
    .u16(2000)
    .u8(0x41, 1)
    .u16(0xffff)
    .u16(0xffff)
    .u16(0xffff)
    .u8(0, 0, 0, cores, cores, cores * threads)
    .u16(2)
    .u16(1)
    .u16(cores)
    .u16(cores)
    .u16(cores * threads)
    .finish();
}

/** Types 16, 17 and 19 (7.17, 7.18, 7.20). */
function addMemory(b: Builder, options: SmbiosOptions): void {
  const { ramSize, lowRam } = options;
  const modules = Math.max(1, Math.ceil(ramSize / MODULE_BYTES));
  const kib = ramSize / 1024;
  const huge = kib >= 0x80000000;
  b.add(
    16,
    0x1000,
    new ByteWriter()
      .u8(1, 3, 6)
      .u32(huge ? 0x80000000 : kib)
      .u16(0xfffe)
      .u16(modules)
      .u64(huge ? ramSize : 0)
      .finish(),
  );
  for (let i = 0; i < modules; i++) {
    const size = Math.min(MODULE_BYTES, ramSize - i * MODULE_BYTES);
    b.add(17, 0x1100 + i, memoryDevice(size), [`DIMM ${i}`, MANUFACTURER]);
  }
  b.add(19, 0x1300, mappedRange(0, lowRam, modules));
  if (ramSize > lowRam) b.add(19, 0x1301, mappedRange(4 * GIB, ramSize - lowRam, modules));
}

function memoryDevice(size: number): Uint8Array {
  const mib = Math.max(1, Math.floor(size / MIB));
  return new ByteWriter()
    .u16(0x1000)
    .u16(0xfffe)
    .u16(0xffff)
    .u16(0xffff)
    .u16(mib < 0x7fff ? mib : 0x7fff)
    .u8(9, 0, 1, 0, 7)
    .u16(2)
    .u16(0)
    .u8(2, 0, 0, 0, 0)
    .u32(mib < 0x7fff ? 0 : mib)
    .u16(0)
    .u16(0)
    .u16(0)
    .u16(0)
    .finish();
}

function mappedRange(base: number, size: number, modules: number): Uint8Array {
  const last = base + size - 1;
  const wide = last / 1024 >= 0xffffffff;
  return new ByteWriter()
    .u32(wide ? 0xffffffff : base / 1024)
    .u32(wide ? 0xffffffff : Math.floor(last / 1024))
    .u16(0x1000)
    .u8(modules)
    .u64(wide ? base : 0)
    .u64(wide ? last : 0)
    .finish();
}

/** 5.2.1: two checksums, of the whole and of the inner "_DMI_" part. */
function entry21(length: number, count: number, largest: number, base: number): Uint8Array {
  const data = new ByteWriter()
    .text('_SM_')
    .u8(0, 0x1f, 2, 8)
    .u16(largest)
    .u8(0)
    .zeros(5)
    .text('_DMI_')
    .u8(0)
    .u16(length)
    .u32(base)
    .u16(count)
    .u8(0x28)
    .finish();
  fixChecksum(data, 0x15, 0x10, 0x0f);
  fixChecksum(data, 4);
  return data;
}

/** 5.2.2 */
function entry30(length: number, base: number): Uint8Array {
  const data = new ByteWriter().text('_SM3_').u8(0, 0x18, 3, 0, 0, 1, 0).u32(length).u64(base).finish();
  fixChecksum(data, 5);
  return data;
}
