/** Guests of this folder as firmware: a 64 KiB image that copies its program to 10000h and starts it. */

const SIZE = 0x10000;
const BOOT = 0xff00;
/** How often the guest goes through its program (kit.inc, done16). */
const PASSES = 0xffe0;
const RESET_VECTOR = 0xfff0;

const COPY = [
  0xfa,
  0xfc, //             cli; cld
  0x31,
  0xff,
  0x31,
  0xf6, // xor di, di; xor si, si
  0xb8,
  0x00,
  0x10, //       mov ax, 1000h
  0x8e,
  0xc0, //             mov es, ax
  0xb8,
  0x00,
  0xf0, //       mov ax, F000h
  0x8e,
  0xd8, //             mov ds, ax
  0xb9,
  BOOT & 0xff,
  BOOT >> 8, // mov cx, length
  0xac, //             next: lodsb
  // What is the same already is left alone: a second pass must find its code translated.
  0x26,
  0x3a,
  0x05, //       cmp al, [es:di]
  0x74,
  0x03, //             je same
  0x26,
  0x88,
  0x05, //       mov [es:di], al
  0x47, //             same: inc di
  0xe2,
  0xf4, //             loop next
  0xea,
  0x00,
  0x00,
  0x00,
  0x10, // jmp 1000h:0
];

/** @param program at most FF00h bytes, assembled for 10000h  @param passes 1 to 255 */
export function guestImage(program: Uint8Array, passes: number): Uint8Array {
  if (program.length > BOOT) throw new Error(`the program has ${program.length} bytes`);
  const bytes = new Uint8Array(SIZE);
  bytes.set(program);
  bytes.set(COPY, BOOT);
  bytes[PASSES] = passes;
  const distance = (BOOT - (RESET_VECTOR + 3)) & 0xffff;
  bytes.set([0xe9, distance & 0xff, distance >> 8], RESET_VECTOR);
  return bytes;
}
