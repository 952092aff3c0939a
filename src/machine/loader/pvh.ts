/**
 * ELF kernels with a PVH entry point (Xen's docs/misc/pvh.pandoc and
 * public/arch-x86/hvm/start_info.h): 32-bit protected mode, EBX holds the start info.
 */
import { bootGdt, flatState, type InitialCpuState } from './cpu-state.ts';
import { type BootImage, type BootPlace, ImageError, LAYOUT, placeCommandLine, placeInitrd } from './place.ts';

const PT_LOAD = 1;
const PT_NOTE = 4;
const NOTE_PHYS32_ENTRY = 18;
const START_MAGIC = 0x336ec578;
const START_SIZE = 56;
const MODULE_SIZE = 32;
const MEMORY_ENTRY_SIZE = 24;
const INITRD_LIMIT = 0x80000000;

type Segment = { type: number; offset: number; paddr: number; fileSize: number; memSize: number };

export function isElf(file: Uint8Array): boolean {
  return file.length >= 52 && file[0] === 0x7f && file[1] === 0x45 && file[2] === 0x4c && file[3] === 0x46;
}

export function loadPvhElf(image: BootImage, place: BootPlace): InitialCpuState {
  const segments = readSegments(image);
  const entry = findEntry(image, segments);
  if (entry === -1) {
    throw new ImageError(image, 'not a Linux bzImage or PVH ELF (it has no PVH entry note)');
  }
  const end = loadSegments(image, place, segments);
  const initrd = placeInitrd(image, place, Math.ceil(end / 4096) * 4096, INITRD_LIMIT);
  const commandLine = placeCommandLine(image, place, 0xffff);
  place.memory.writeBytes(LAYOUT.info, startInfo(image, place, initrd, commandLine));
  place.memory.writeBytes(LAYOUT.gdt, bootGdt('prot32'));
  return flatState('prot32', {
    rip: entry,
    rsi: 0,
    rbx: LAYOUT.info,
    rsp: LAYOUT.stack,
    cr3: 0,
    gdtBase: LAYOUT.gdt,
  });
}

/** Program headers of either class, checked against the file's size. */
function readSegments(image: BootImage): Segment[] {
  const file = image.kernel;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const wide = file[4] === 2;
  if ((file[4] !== 1 && !wide) || file[5] !== 1 || (wide && file.length < 64)) {
    throw new ImageError(image, 'not a Linux bzImage or PVH ELF (not a little-endian ELF file)');
  }
  const word = (at: number) => (wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true));
  const table = word(wide ? 32 : 28);
  const entrySize = view.getUint16(wide ? 54 : 42, true);
  const count = view.getUint16(wide ? 56 : 44, true);
  if (entrySize < (wide ? 56 : 32) || table + entrySize * count > file.length) {
    throw new ImageError(image, 'ELF program headers lie outside the file');
  }
  const segments: Segment[] = [];
  for (let i = 0; i < count; i++) {
    const at = table + i * entrySize;
    const segment: Segment = {
      type: view.getUint32(at, true),
      offset: word(at + (wide ? 8 : 4)),
      paddr: word(at + (wide ? 24 : 12)),
      fileSize: word(at + (wide ? 32 : 16)),
      memSize: word(at + (wide ? 40 : 20)),
    };
    const used = segment.type === PT_LOAD || segment.type === PT_NOTE;
    if (used && segment.offset + segment.fileSize > file.length) {
      throw new ImageError(image, `ELF segment ${i} lies outside the file`);
    }
    segments.push(segment);
  }
  return segments;
}

/** @returns -1 when no note names an entry */
function findEntry(image: BootImage, segments: readonly Segment[]): number {
  for (const segment of segments) {
    if (segment.type !== PT_NOTE) continue;
    const notes = image.kernel.subarray(segment.offset, segment.offset + segment.fileSize);
    const entry = findXenNote(notes);
    if (entry !== -1) return entry;
  }
  return -1;
}

function findXenNote(notes: Uint8Array): number {
  const view = new DataView(notes.buffer, notes.byteOffset, notes.byteLength);
  const align4 = (n: number) => Math.ceil(n / 4) * 4;
  for (let at = 0; at + 12 <= notes.length; ) {
    const nameSize = view.getUint32(at, true);
    const descSize = view.getUint32(at + 4, true);
    const desc = at + 12 + align4(nameSize);
    const next = desc + align4(descSize);
    if (desc + descSize > notes.length) return -1;
    const isXen = nameSize === 4 && view.getUint32(at + 12, false) === 0x58656e00;
    if (isXen && view.getUint32(at + 8, true) === NOTE_PHYS32_ENTRY && descSize >= 4) {
      return view.getUint32(desc, true);
    }
    at = next;
  }
  return -1;
}

/** @returns the end of the highest segment */
function loadSegments(image: BootImage, place: BootPlace, segments: readonly Segment[]): number {
  let highest = 0;
  for (const { type, offset, paddr, fileSize, memSize } of segments) {
    if (type !== PT_LOAD || memSize === 0) continue;
    const end = paddr + memSize;
    if (fileSize > memSize || paddr < 0x100000 || end > place.lowEnd) {
      throw new ImageError(
        image,
        `ELF segment at 0x${paddr.toString(16)} of ${memSize} bytes does not fit into RAM ` +
          `(0x100000 to 0x${place.lowEnd.toString(16)})`,
      );
    }
    place.memory.writeBytes(paddr, image.kernel.subarray(offset, offset + fileSize));
    clear(place, paddr + fileSize, memSize - fileSize);
    highest = Math.max(highest, end);
  }
  return highest;
}

function clear(place: BootPlace, base: number, size: number): void {
  const zeros = new Uint8Array(Math.min(size, 65536));
  for (let done = 0; done < size; done += zeros.length) {
    place.memory.writeBytes(base + done, zeros.subarray(0, Math.min(zeros.length, size - done)));
  }
}

/** The start info, followed by the module list and the memory map. */
function startInfo(image: BootImage, place: BootPlace, initrd: number, commandLine: number): Uint8Array {
  const modules = START_SIZE + 8;
  const map = modules + MODULE_SIZE;
  const data = new Uint8Array(map + MEMORY_ENTRY_SIZE * place.e820.length);
  const view = new DataView(data.buffer);
  const u64 = (at: number, value: number) => view.setBigUint64(at, BigInt(value), true);
  view.setUint32(0, START_MAGIC, true);
  view.setUint32(4, 1, true);
  view.setUint32(12, initrd === 0 ? 0 : 1, true);
  u64(16, initrd === 0 ? 0 : LAYOUT.info + modules);
  u64(24, commandLine);
  u64(32, place.rsdp);
  u64(40, LAYOUT.info + map);
  view.setUint32(48, place.e820.length, true);
  u64(modules, initrd);
  u64(modules + 8, initrd === 0 ? 0 : image.initrd!.length);
  place.e820.forEach((entry, i) => {
    const at = map + MEMORY_ENTRY_SIZE * i;
    u64(at, entry.base);
    u64(at + 8, entry.size);
    view.setUint32(at + 16, entry.type, true);
  });
  return data;
}
