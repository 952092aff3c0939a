/**
 * What a mapped folder keeps, in extended attributes of the real files, as QEMU's `security_model=mapped-xattr` has
 * them: `user.virtfs.uid`, `gid` and `mode` of 32 bits and `rdev` of 64, the lowest byte first.
 */
import { type FileTree, type TreeAttributes, TreeError, type TreePath } from './file-tree.ts';
import { type Mapped, MAPPED_KEYS, type MappedStore } from './mapped-tree.ts';

const PREFIX = 'user.virtfs.';
const SIZE = { uid: 4, gid: 4, mode: 4, rdev: 8 } as const;

export class Attributes implements MappedStore {
  private readonly attributes: TreeAttributes;

  /** @throws Error when the host has no such calls */
  constructor(base: FileTree) {
    if (base.attributes === null) throw new Error('extended attributes cannot be had on this host (mapped-file needs none)');
    this.attributes = base.attributes;
  }

  hides(): boolean {
    return false;
  }

  load(path: TreePath): Mapped {
    const found: Mapped = {};
    for (const key of MAPPED_KEYS) {
      const bytes = this.attributes.get(path, `${PREFIX}${key}`, SIZE[key]);
      if (bytes !== null && bytes.length === SIZE[key]) found[key] = numberOf(bytes);
    }
    return found;
  }

  save(path: TreePath, mapped: Mapped): void {
    for (const key of MAPPED_KEYS) {
      const value = mapped[key];
      if (value !== undefined) this.attributes.set(path, `${PREFIX}${key}`, bytesOf(value, SIZE[key]));
    }
  }

  /** They went with the file, and stay with it under its other names. */
  forget(): void {
    // Nothing is left of them.
  }

  clear(): void {
    // Nothing lies in the directory.
  }
}

const numberOf = (bytes: Uint8Array): number => bytes.reduceRight((value, byte) => value * 256 + byte, 0);

function bytesOf(value: number, size: number): Uint8Array {
  if (!Number.isSafeInteger(value) || value < 0) throw new TreeError('EINVAL');
  return Uint8Array.from({ length: size }, (_, i) => Math.floor(value / 256 ** i) & 0xff);
}
