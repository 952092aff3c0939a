/** Tables of an image in memory: as many as fit, changed ones written back in an order that their owner keeps. */
import type { BlockNode } from '../node.ts';
import { Lock, type Task } from '../task.ts';

export class Table {
  /** Bytes from the file's start. */
  offset = 0;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** The same by 64 bits, of which this tells only whether there is anything but zeros (or the highest bit) in them. */
  readonly entries: Float64Array;
  dirty = false;
  /** Writes under way: it must not be read again from the file meanwhile. */
  writing = 0;
  used = true;
  loading: Promise<void> | null = null;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.view = new DataView(this.bytes.buffer);
    this.entries = new Float64Array(this.bytes.buffer, 0, length >> 3);
  }
}

/** A changed table as it was when its turn came. */
export type Copy = { readonly table: Table; readonly bytes: Uint8Array };

/**
 * A table that `get` has returned may be used until the next wait; after that it must be asked for again.
 */
export class TableCache {
  readonly length: number;
  private readonly file: BlockNode;
  private readonly limit: number;
  private readonly tables = new Map<number, Table>();
  private readonly spare: Table[] = [];
  private readonly writeBack: () => Task<void>;
  private last: Table | null = null;
  private dirtyCount = 0;
  private readonly writeLock = new Lock();

  /**
   * @param length bytes of a table
   * @param limit tables
   * @param writeBack writes changed tables in the right order
   */
  constructor(file: BlockNode, length: number, limit: number, writeBack: () => Task<void>) {
    this.file = file;
    this.length = length;
    this.limit = limit;
    this.writeBack = writeBack;
  }

  get anyDirty(): boolean {
    return this.dirtyCount > 0;
  }

  /** @returns the table if it is in memory */
  peek(offset: number): Table | null {
    const { last } = this;
    if (last !== null && last.offset === offset) return last;
    const table = this.tables.get(offset);
    if (table === undefined || table.loading !== null) return null;
    table.used = true;
    this.last = table;
    return table;
  }

  *get(offset: number): Task<Table> {
    for (;;) {
      const there = this.peek(offset);
      if (there !== null) return there;
      const loading = this.tables.get(offset)?.loading;
      if (loading) yield loading;
      else if (this.tables.size >= this.limit && this.evict() === null) {
        if (this.dirtyCount === 0) break;
        yield* this.writeBack();
        if (this.evict() === null) break;
      } else break;
    }
    return yield* this.load(offset);
  }

  /** A table of zeros that is new in the file. */
  *create(offset: number): Task<Table> {
    while (this.tables.size >= this.limit && this.evict() === null && this.dirtyCount > 0) yield* this.writeBack();
    const table = this.take(offset);
    table.bytes.fill(0);
    this.changed(table);
    return table;
  }

  changed(table: Table): void {
    if (table.dirty) return;
    table.dirty = true;
    this.dirtyCount++;
  }

  /** What is in memory of this range is no longer wanted. */
  forget(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += this.length) {
      const table = this.tables.get(at);
      if (table === undefined) continue;
      if (table.dirty) this.dirtyCount--;
      table.dirty = false;
      this.tables.delete(at);
      if (this.last === table) this.last = null;
    }
  }

  /** Copies of all changed tables, which count as unchanged from now on. */
  takeDirty(): Copy[] {
    if (this.dirtyCount === 0) return [];
    const copies: Copy[] = [];
    for (const table of this.tables.values()) {
      if (!table.dirty) continue;
      table.dirty = false;
      table.writing++;
      copies.push({ table, bytes: table.bytes.slice() });
    }
    this.dirtyCount = 0;
    return copies.sort((a, b) => a.table.offset - b.table.offset);
  }

  /** Writes all changed tables, where their order does not matter. @returns whether there were any */
  *writeDirty(): Task<boolean> {
    // Two writes of one table must not pass each other on the way to the file.
    yield* this.writeLock.acquire();
    try {
      const copies = this.takeDirty();
      yield* this.put(copies);
      return copies.length > 0;
    } finally {
      this.writeLock.release();
    }
  }

  /** Writes copies; those that could not be written count as changed again. */
  *put(copies: readonly Copy[]): Task<void> {
    let failure: unknown = null;
    for (const { table, bytes } of copies) {
      try {
        if (failure !== null) throw failure;
        // What has been freed in the meantime may be anybody's.
        if (this.tables.get(table.offset) === table) {
          const writing = this.file.write(table.offset, bytes);
          if (writing !== undefined) yield writing;
        }
      } catch (error) {
        failure = error;
        if (this.tables.get(table.offset) === table) this.changed(table);
      }
      table.writing--;
    }
    if (failure !== null) throw failure;
  }

  private *load(offset: number): Task<Table> {
    if (offset >= this.file.size) throw new Error(`a table at offset 0x${offset.toString(16)} lies beyond the end of the file`);
    const table = this.take(offset);
    let loaded = (): void => undefined;
    try {
      const reading = this.file.read(offset, table.bytes);
      if (reading !== undefined) {
        table.loading = new Promise((resolve) => {
          loaded = resolve;
        });
        yield reading;
      }
    } catch (error) {
      this.tables.delete(offset);
      if (this.last === table) this.last = null;
      throw error;
    } finally {
      table.loading = null;
      loaded();
    }
    return table;
  }

  private take(offset: number): Table {
    const table = this.spare.pop() ?? new Table(this.length);
    table.offset = offset;
    table.used = true;
    table.dirty = false;
    this.tables.set(offset, table);
    return table;
  }

  /** Lets go of the unchanged table that has not been used for longest, roughly. @returns null if there is none */
  private evict(): Table | null {
    for (let tries = 2 * this.tables.size; tries > 0; tries--) {
      const [offset, table] = this.tables.entries().next().value!;
      this.tables.delete(offset);
      if (table.used || table.dirty || table.writing > 0 || table.loading !== null) {
        table.used = false;
        this.tables.set(offset, table);
        continue;
      }
      if (this.last === table) this.last = null;
      this.spare.push(table);
      return table;
    }
    return null;
  }
}
