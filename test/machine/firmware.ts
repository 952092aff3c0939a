/** Firmware of a few instructions, for tests that need a guest but no kernel. */

const SIZE = 0x10000;
/** Where the programs start, and the jump to it at the reset vector. */
const ENTRY = 0xf000;
const RESET_VECTOR = 0xfff0;

export const DEBUG_EXIT_PORT = 0xf4;

function image(program: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(SIZE).fill(0xf4);
  bytes.set(program, ENTRY);
  const distance = (ENTRY - (RESET_VECTOR + 3)) & 0xffff;
  bytes.set([0xe9, distance & 0xff, distance >> 8], RESET_VECTOR);
  return bytes;
}

/** hlt; jmp back to it */
const HALT = [0xf4, 0xeb, 0xfd];

/** mov al, value; out DEBUG_EXIT_PORT, al */
const exit = (value: number): number[] => [0xb0, value, 0xe6, DEBUG_EXIT_PORT, ...HALT];

function printing(text: string): number[] {
  // mov dx, 3F8h, then for each character: mov al, character; out dx, al
  const characters = [...new TextEncoder().encode(text)].flatMap((byte) => [0xb0, byte, 0xee]);
  return [0xba, 0xf8, 0x03, ...characters];
}

/** Prints a text at the first serial port, and ends with status 2 * value + 1. */
export function greeter(text: string, value: number): Uint8Array {
  return image([...printing(text), ...exit(value)]);
}

/** Prints a text and halts for ever. */
export function sleeper(text: string): Uint8Array {
  return image([...printing(text), ...HALT]);
}

/** Resets the machine by the keyboard controller after printing a text. */
export function resetter(text: string): Uint8Array {
  // mov al, FEh; out 64h, al
  return image([...printing(text), 0xb0, 0xfe, 0xe6, 0x64, ...HALT]);
}

/** Prints "ready", then echoes what it receives; "q" makes it end with status 3. */
export function echo(): Uint8Array {
  return image([
    ...printing('ready\n'),
    0xba,
    0xfd,
    0x03, // wait: mov dx, 3FDh
    0xec, //                    in al, dx
    0xa8,
    0x01, //              test al, 1
    0x74,
    0xf8, //              jz wait
    0xba,
    0xf8,
    0x03, //        mov dx, 3F8h
    0xec, //                    in al, dx
    0xee, //                    out dx, al
    0x3c,
    0x71, //              cmp al, 'q'
    0x75,
    0xef, //              jne wait
    ...exit(1),
  ]);
}
