/** Linux bzImage: Documentation/arch/x86/boot.rst, the 64-bit and 32-bit boot protocols. */
import { bootGdt, flatState, type InitialCpuState } from './cpu-state.ts';
import { type BootImage, type BootPlace, ImageError, LAYOUT, placeCommandLine, placeInitrd } from './place.ts';

/** Offsets in the setup header, which are those in the zero page, too. */
const H = {
  setupSects: 0x1f1,
  bootFlag: 0x1fe,
  jump: 0x200,
  magic: 0x202,
  version: 0x206,
  loaderType: 0x210,
  loadFlags: 0x211,
  code32Start: 0x214,
  ramdiskImage: 0x218,
  ramdiskSize: 0x21c,
  heapEnd: 0x224,
  commandLine: 0x228,
  initrdMax: 0x22c,
  alignment: 0x230,
  relocatable: 0x234,
  xloadFlags: 0x236,
  commandLineSize: 0x238,
  prefAddress: 0x258,
  initSize: 0x260,
} as const;
/** Offsets elsewhere in the zero page (Documentation/arch/x86/zero-page.rst). */
const Z = {
  altMemK: 0x1e0,
  e820Count: 0x1e8,
  e820: 0x2d0,
  rsdp: 0x070,
  size: 4096,
  maxE820: 128,
} as const;
const HDRS = 0x53726448;
const LOADED_HIGH = 1;
const CAN_USE_HEAP = 0x80;
const XLF_KERNEL_64 = 1;
const LOW_KERNEL = 0x100000;
const PAGE = 4096;

type Header = {
  view: DataView;
  end: number;
  payload: number;
  version: number;
  long: boolean;
  relocatable: boolean;
  alignment: number;
  prefAddress: number;
  initSize: number;
  initrdMax: number;
  commandLineSize: number;
};

export function isBzImage(file: Uint8Array): boolean {
  if (file.length < 0x268) return false;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  return view.getUint16(H.bootFlag, true) === 0xaa55 && view.getUint32(H.magic, true) === HDRS;
}

export function loadBzImage(image: BootImage, place: BootPlace): InitialCpuState {
  const header = parseHeader(image);
  const payload = image.kernel.subarray(header.payload);
  const base = kernelBase(image, header, payload.length, place.lowEnd);
  const kernelEnd = base + Math.max(header.initSize, payload.length);
  place.memory.writeBytes(base, payload);
  const initrd = placeInitrd(image, place, kernelEnd, header.initrdMax + 1);
  const commandLine = placeCommandLine(image, place, header.commandLineSize);
  place.memory.writeBytes(LAYOUT.info, zeroPage(image, place, header, base, initrd, commandLine));
  return enter(place, header, base);
}

function parseHeader(image: BootImage): Header {
  const file = image.kernel;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const version = view.getUint16(H.version, true);
  if (version < 0x0202) {
    throw new ImageError(image, `boot protocol ${version >> 8}.${version & 255} is too old`);
  }
  if ((file[H.loadFlags]! & LOADED_HIGH) === 0) {
    throw new ImageError(image, 'not a bzImage (it is to be loaded low)');
  }
  const payload = ((file[H.setupSects]! || 4) + 1) * 512;
  if (payload >= file.length) {
    throw new ImageError(image, `truncated (${file.length} bytes, setup alone takes ${payload})`);
  }
  // The header ends where its first jump lands; fields beyond it are not the kernel's.
  const end = Math.min(H.magic + file[H.jump + 1]!, 0x290, file.length);
  const field = (at: number, since: number, otherwise: number) =>
    version >= since && at + 4 <= end ? view.getUint32(at, true) : otherwise;
  const alignment = field(H.alignment, 0x0205, LOW_KERNEL);
  return {
    view,
    end,
    payload,
    version,
    long: version >= 0x020c && ((field(H.relocatable, 0x020c, 0) >>> 16) & XLF_KERNEL_64) !== 0,
    relocatable: (field(H.relocatable, 0x0205, 0) & 0xff) !== 0,
    alignment: alignment >= PAGE && alignment <= 2 ** 30 && Number.isInteger(Math.log2(alignment)) ? alignment : LOW_KERNEL,
    prefAddress: field(H.prefAddress, 0x020a, LOW_KERNEL) + field(H.prefAddress + 4, 0x020a, 0) * 2 ** 32,
    initSize: field(H.initSize, 0x020a, 0),
    initrdMax: field(H.initrdMax, 0x0203, 0x37ffffff),
    commandLineSize: field(H.commandLineSize, 0x0206, 255),
  };
}

/** The preferred address if it fits, else the lowest one for a kernel that can move. */
function kernelBase(image: BootImage, header: Header, payloadSize: number, lowEnd: number): number {
  const size = Math.max(header.initSize, payloadSize);
  const fits = (base: number) => base >= LOW_KERNEL && base + size <= lowEnd;
  if (header.version < 0x020a) {
    if (fits(LOW_KERNEL)) return LOW_KERNEL;
  } else if (fits(header.prefAddress) && header.prefAddress % PAGE === 0) {
    return header.prefAddress;
  } else if (header.relocatable) {
    const base = Math.ceil(LOW_KERNEL / header.alignment) * header.alignment;
    if (fits(base)) return base;
  }
  throw new ImageError(
    image,
    `needs ${size} bytes at 0x${header.prefAddress.toString(16)}, RAM there ends at ` + `0x${lowEnd.toString(16)}`,
  );
}

function zeroPage(
  image: BootImage,
  place: BootPlace,
  header: Header,
  base: number,
  initrd: number,
  commandLine: number,
): Uint8Array {
  const page = new Uint8Array(Z.size);
  const view = new DataView(page.buffer);
  page.set(image.kernel.subarray(H.setupSects, header.end), H.setupSects);
  page[H.loaderType] = 0xff;
  page[H.loadFlags] = page[H.loadFlags]! | CAN_USE_HEAP;
  view.setUint16(H.heapEnd, 0xfe00 - 0x200, true);
  view.setUint32(H.code32Start, base, true);
  view.setUint32(H.ramdiskImage, initrd, true);
  view.setUint32(H.ramdiskSize, initrd === 0 ? 0 : image.initrd!.length, true);
  view.setUint32(H.commandLine, commandLine, true);
  view.setBigUint64(Z.rsdp, BigInt(place.rsdp), true);
  view.setUint32(Z.altMemK, Math.min(0xffffffff, (place.lowEnd - LOW_KERNEL) / 1024), true);
  const entries = place.e820.slice(0, Z.maxE820);
  page[Z.e820Count] = entries.length;
  entries.forEach((entry, i) => {
    const at = Z.e820 + 20 * i;
    view.setBigUint64(at, BigInt(entry.base), true);
    view.setBigUint64(at + 8, BigInt(entry.size), true);
    view.setUint32(at + 16, entry.type, true);
  });
  return page;
}

function enter(place: BootPlace, header: Header, base: number): InitialCpuState {
  const mode = header.long ? 'long64' : 'prot32';
  place.memory.writeBytes(LAYOUT.gdt, bootGdt(mode));
  if (header.long) place.memory.writeBytes(LAYOUT.pageTables, identityTables(LAYOUT.pageTables));
  return flatState(mode, {
    rip: header.long ? base + 0x200 : base,
    rsi: LAYOUT.info,
    rbx: 0,
    rsp: LAYOUT.stack,
    cr3: header.long ? LAYOUT.pageTables : 0,
    gdtBase: LAYOUT.gdt,
  });
}

/** Maps the low 4 GiB to itself with 2 MiB pages: one PML4, one PDPT, four page directories. */
export function identityTables(base: number): Uint8Array {
  const tables = new Uint8Array(6 * PAGE);
  const view = new DataView(tables.buffer);
  const presentWritable = 3;
  const large = 0x80;
  view.setUint32(0, base + PAGE + presentWritable, true);
  for (let i = 0; i < 4; i++) {
    view.setUint32(PAGE + 8 * i, base + (2 + i) * PAGE + presentWritable, true);
  }
  for (let i = 0; i < 2048; i++) {
    view.setUint32(2 * PAGE + 8 * i, (i * 0x200000 + presentWritable + large) >>> 0, true);
  }
  return tables;
}
