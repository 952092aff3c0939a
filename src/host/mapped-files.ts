/**
 * What a mapped folder keeps, in files beside the real ones, as QEMU's `security_model=mapped-file` has them:
 * `.virtfs_metadata/NAME` has lines like `virtfs.uid=0`.
 */
import { type FileTree, type OpenFlags, type TreeError, type TreePath } from './file-tree.ts';
import { FILE_MODE, FOLDER_MODE, type Mapped, MAPPED_KEYS, type MappedStore } from './mapped-tree.ts';

const FOLDER = '.virtfs_metadata';
/** Of the folder itself, whose own place for such files lies outside. */
const ROOT_NAME = '.virtfs_metadata_root';
const LARGEST = 4096;

const READ: OpenFlags = { read: true, write: false, append: false, truncate: false };
const REPLACE: OpenFlags = { read: false, write: true, append: false, truncate: true };

export class FilesBeside implements MappedStore {
  private readonly base: FileTree;

  constructor(base: FileTree) {
    this.base = base;
  }

  hides(name: string): boolean {
    return name === FOLDER || name === ROOT_NAME;
  }

  load(path: TreePath): Mapped {
    let text: string;
    try {
      text = this.read(placeOf(path));
    } catch {
      return {};
    }
    const found: Mapped = {};
    for (const key of MAPPED_KEYS) {
      const value = new RegExp(`^virtfs\\.${key}=(\\d+)$`, 'm').exec(text)?.[1];
      if (value !== undefined) found[key] = Number(value);
    }
    return found;
  }

  save(path: TreePath, mapped: Mapped): void {
    const lines = MAPPED_KEYS.filter((key) => mapped[key] !== undefined).map((key) => `virtfs.${key}=${mapped[key]!}\n`);
    const place = placeOf(path);
    if (path.length > 0) this.makeFolder(place.slice(0, -1));
    const file = this.base.create(place, REPLACE, FILE_MODE, false);
    file.write(0, new TextEncoder().encode(lines.join('')));
    file.close();
  }

  forget(path: TreePath): void {
    try {
      this.base.remove(placeOf(path), false);
    } catch {
      // There was none.
    }
  }

  clear(path: TreePath): void {
    const ours = [...path, FOLDER];
    try {
      for (const name of this.base.list(ours)) this.base.remove([...ours, name], false);
      this.base.remove(ours, true);
    } catch (error) {
      if ((error as TreeError).code !== 'ENOENT') throw error;
    }
  }

  private read(place: TreePath): string {
    const file = this.base.open(place, READ);
    try {
      const data = new Uint8Array(LARGEST);
      return String.fromCharCode(...data.subarray(0, file.read(0, data)));
    } finally {
      file.close();
    }
  }

  private makeFolder(path: TreePath): void {
    try {
      this.base.makeDirectory(path, FOLDER_MODE);
    } catch (error) {
      if ((error as TreeError).code !== 'EEXIST') throw error;
    }
  }
}

function placeOf(path: TreePath): string[] {
  if (path.length === 0) return [ROOT_NAME];
  return [...path.slice(0, -1), FOLDER, path.at(-1)!];
}
