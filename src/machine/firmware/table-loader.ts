/**
 * The script by which firmware puts files of fw_cfg into memory, as SeaBIOS and OVMF run it:
 * commands of 128 bytes that allocate a file's place, add the address of one file to a word
 * in another, or fix a checksum. All numbers are little-endian.
 */
import { ByteWriter } from './bytes.ts';

const COMMAND_SIZE = 128;
const NAME_SIZE = 56;
const COMMAND = { allocate: 1, addPointer: 2, addChecksum: 3 } as const;

/** Where firmware places a file: anywhere, or below 1 MiB from F0000h on, where it is searched for. */
export const ZONE = { high: 1, fseg: 2 } as const;

export class TableLoader {
  private readonly out = new ByteWriter();

  /** @param align a power of two, bytes */
  allocate(file: string, align: number, zone: number): this {
    return this.command(COMMAND.allocate, (body) => body.text(file, NAME_SIZE).u32(align).u8(zone));
  }

  /** The word at `at` holds an offset in `source`, and becomes an address. */
  addPointer(file: string, source: string, at: number, size: number): this {
    return this.command(COMMAND.addPointer, (body) => body.text(file, NAME_SIZE).text(source, NAME_SIZE).u32(at).u8(size));
  }

  /** The byte at `at`, zero so far, makes `length` bytes from `start` on sum to zero. */
  addChecksum(file: string, at: number, start: number, length: number): this {
    return this.command(COMMAND.addChecksum, (body) => body.text(file, NAME_SIZE).u32(at).u32(start).u32(length));
  }

  finish(): Uint8Array {
    return this.out.finish();
  }

  private command(code: number, write: (body: ByteWriter) => ByteWriter): this {
    const body = write(new ByteWriter().u32(code)).finish();
    this.out.bytes(body).zeros(COMMAND_SIZE - body.length);
    return this;
  }
}
