/** Raw images: the bytes of the disk as they are, in a file or in memory. */
import type { BlockFile } from '../host/host.ts';
import type { BlockBackend, Completion } from '../machine/interfaces.ts';

const SECTOR = 512;

/** A last sector that is not whole reads as if zeros followed. */
const wholeSectors = (bytes: number): number => Math.ceil(bytes / SECTOR) * SECTOR;

export class RawFile implements BlockBackend {
  readonly size: number;
  readonly readOnly: boolean;
  private readonly file: BlockFile;
  private readonly repeatable: boolean;

  /** @param repeatable every operation is over when it returns, so that runs do not depend on the host */
  constructor(file: BlockFile, readOnly: boolean, repeatable = false) {
    this.file = file;
    this.repeatable = repeatable;
    this.size = wholeSectors(file.size);
    this.readOnly = readOnly;
  }

  /** @throws Error also where the file has become shorter than it was */
  read(offset: number, into: Uint8Array): Completion {
    const count = this.file.read(offset, into);
    if (count < into.length && offset + count < this.file.size) {
      throw new Error(`the file ends at byte ${offset + count}`);
    }
    into.fill(0, count);
  }

  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    this.file.write(offset, from);
  }

  flush(): Completion {
    if (this.readOnly) return undefined;
    return this.repeatable ? this.file.syncNow() : this.file.sync();
  }

  discard(): Completion {
    // Files keep their space: what was discarded may read as before.
  }

  close(): void {
    this.file.close();
  }
}

export class RawMemory implements BlockBackend {
  readonly size: number;
  readonly readOnly: boolean;
  private readonly data: Uint8Array;

  /** @param data used in place */
  constructor(data: Uint8Array, readOnly: boolean) {
    this.size = wholeSectors(data.length);
    this.readOnly = readOnly;
    this.data = data;
    if (data.length !== this.size) {
      this.data = new Uint8Array(this.size);
      this.data.set(data);
    }
  }

  read(offset: number, into: Uint8Array): Completion {
    into.set(this.data.subarray(offset, offset + into.length));
  }

  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    this.data.set(from, offset);
  }

  flush(): Completion {
    // Memory has nothing behind it.
  }

  discard(offset: number, length: number): Completion {
    if (!this.readOnly) this.data.fill(0, offset, offset + length);
  }

  close(): void {
    // Nothing to release.
  }
}
