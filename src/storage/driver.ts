/** What a driver of the block graph is, and how nodes are opened. */
import type { BlockNode } from './node.ts';
import type { ThrottleGroup } from './throttle.ts';
import { choice, flag, type Given, group, optional, type Schema, text, type Values } from './schema.ts';

/** Options that every node has. */
export const COMMON = {
  driver: text,
  'node-name': optional(text, ''),
  'read-only': optional(flag, null),
  'auto-read-only': optional(flag, false),
  'force-share': optional(flag, null),
  discard: optional(choice('ignore', 'off', 'unmap', 'on'), null),
  'detect-zeroes': optional(choice('off', 'on', 'unmap'), 'off'),
  cache: group({ direct: optional(flag, null), 'no-flush': optional(flag, null) }),
} satisfies Schema;

/** How a node is to be opened; children inherit it. */
export interface How {
  readonly writable: boolean;
  /** Where writing is not possible, reading will do. */
  readonly autoReadOnly: boolean;
  readonly direct: boolean;
  readonly noFlush: boolean;
  /** Discards are passed on. */
  readonly unmap: boolean;
  /** Operations are over when they return. */
  readonly immediate: boolean;
  /** See `BlockFileMode`. */
  readonly overlap: boolean;
  /** Other processes may write to the image meanwhile. */
  readonly share: boolean;
  /** No one is kept out; only for reading. */
  readonly forceShare: boolean;
  /** The size of the file may change. */
  readonly resize: boolean;
  /** Backing files are not opened. */
  readonly noBacking: boolean;
  /** Images that led to this one, to find loops. */
  readonly chain: readonly string[];
  readonly secrets: ReadonlyMap<string, Uint8Array>;
  readonly throttleGroups: ReadonlyMap<string, ThrottleGroup>;
  readonly warn: (line: string) => void;
  /** The format was guessed: a guest must not turn a raw image into another. */
  readonly probed: boolean;
  /** Only what repairing needs is read, from images that would be refused otherwise. */
  readonly repairing: boolean;
}

/** What a driver needs while it opens a node. */
export interface Opening {
  readonly how: How;
  /**
   * Opens a child given in place, or takes a node by its name.
   * @param format where only a file is named, its format is found out; otherwise it is taken for bytes
   */
  child(given: Given | string, changes?: Partial<How>, format?: boolean): Promise<BlockNode>;
  /** Opens an image by name, relative to another image where it is relative. */
  image(name: string, format: string | null, changes?: Partial<How>): Promise<BlockNode>;
}

export interface Driver<S extends Schema = Schema> {
  readonly name: string;
  /** The bytes come from outside, not from another node. */
  readonly protocol: boolean;
  readonly options: S;
  open(values: Values<S>, opening: Opening): Promise<BlockNode>;
  /** Options from a name like `nbd://…`. */
  fromName?(name: string): Given;
}

/** Keeps a driver's options and what it does with them of one type. */
export const driver = <S extends Schema>(made: Driver<S>): Driver => made as unknown as Driver;

/** The bits of QEMU's locks. */
export const RIGHT = { read: 1, write: 2, rewrite: 4, resize: 8 } as const;
export const RIGHT_NAMES = ['consistent read', 'write', 'write unchanged', 'resize'] as const;
