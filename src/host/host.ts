/**
 * What the rest of the project needs of the host it runs on. `#host` resolves to the module of the
 * host at hand (package.json, "imports").
 */

import type { Pieces } from './pieces.ts';

/** The other end of a thread. Messages are structured clones. */
export interface MessageEnd<Send, Receive> {
  post(message: Send, transfer?: readonly ArrayBufferLike[]): void;
  onMessage(listener: (message: Receive) => void): void;
}

export interface Thread<Send, Receive> extends MessageEnd<Send, Receive> {
  /** The thread has thrown, or could not be started. */
  onError(listener: (error: Error) => void): void;
  /** Hands over what has arrived, where the host can, without waiting for the event loop. */
  poll(): void;
  /** The thread alone no longer keeps the program running. */
  detach(): void;
  terminate(): void;
}

/** Bytes to and from the outside. */
export interface Channel {
  /** Ends when the other side will send no more. */
  readonly readable: ReadableStream<Uint8Array>;
  readonly writable: WritableStream<Uint8Array>;
  close(): void | Promise<void>;
}

/** A piece of memory for machine code of the host's processor. */
export interface MachineCode {
  /** Where it lies in the process; below 2 GiB, so that 32 bits name any place in it. */
  readonly address: number;
  readonly bytes: Uint8Array;
  /** Address in the process of a memory's first byte. */
  addressOf(memory: ArrayBufferLike): bigint;
  /** Calls the function at the piece's first byte, which takes nothing and gives an i32. */
  call(): number;
  /** Gives the memory back: nothing of it may be used any more. */
  release(): void;
}

/** How a file is opened. */
export interface BlockFileMode {
  readonly writable: boolean;
  /** It is made if it is not there. */
  readonly create: boolean;
  /** Transfers bypass the host's page cache. */
  readonly direct: boolean;
  /** Every operation is over when it returns, so that runs do not depend on the host. */
  readonly immediate: boolean;
  /** Nobody waits for this thread: long reads are others', even of what is in the host's memory, so that it can do something else. */
  readonly overlap: boolean;
}

/** A stretch of a file, from where one asked to `end` (exclusive, bytes): data, or a hole that reads as zeros. */
export interface FileExtent {
  readonly data: boolean;
  readonly end: number;
}

/** A file or block device of the host's that is read and written in place. Offsets are bytes. */
export interface BlockFile {
  /** See `BlockFileMode`; may be changed while nothing is under way. */
  immediate: boolean;
  /** Bytes; follows what is written through this object. */
  readonly size: number;
  readonly isDevice: boolean;
  /** @returns bytes read, fewer than asked for at the file's end @throws Error */
  read(offset: number, into: Uint8Array): number | Promise<number>;
  /** @throws Error */
  write(offset: number, from: Uint8Array): void | Promise<void>;
  /** The same into many places; the pieces must stay as they are until it has ended. */
  readPieces(offset: number, into: Pieces): number | Promise<number>;
  writePieces(offset: number, from: Pieces): void | Promise<void>;
  /** Ends when the data written before is on stable storage. @throws Error */
  sync(): void | Promise<void>;
  /** @throws Error */
  truncate(size: number): void;
  /** Gives space back; the range reads as zeros. @returns false where the host cannot */
  punchHole(offset: number, length: number): boolean;
  /** The range reads as zeros and keeps its space. @returns false where the host cannot */
  zeroRange(offset: number, length: number): boolean;
  /** Reserves space, without changing contents or size. @returns false where the host cannot */
  allocate(offset: number, length: number): boolean;
  /** @param offset below the size */
  extent(offset: number): FileExtent;
  /** Bytes of the host's storage that it takes. */
  allocatedBytes(): number;
  /**
   * Tells other processes what this one does with the file (bits: 1 read consistently, 2 write, 4 write what is there
   * already, 8 resize) and what they must not do meanwhile. The locks are QEMU's.
   * @returns the right that clashes: `shared` when another has it already, otherwise another forbids it; null if none
   */
  lock(held: number, unshared: number): { shared: boolean; bit: number } | null;
  /** Looks the size up again. */
  refresh(): void;
  /** Ends when all that is under way has ended. */
  close(): void | Promise<void>;
}

/** Cipher of disk sectors. */
export interface SectorCipher {
  /** In place. @param sector number of the first sector, which its initialisation vector is made from */
  encrypt(data: Uint8Array, sector: number): void;
  decrypt(data: Uint8Array, sector: number): void;
}

/** Where a server is. */
export type StreamAddress = { readonly path: string } | { readonly host: string; readonly port: number };

/** A connection, as protocols need it that frame messages themselves. */
export interface ByteStream {
  /** Calls for each piece that arrives, in order. Set once, at once. */
  onData: (chunk: Uint8Array) => void;
  /** Called once, when the connection has ended; with what went wrong, if anything did. */
  onEnd: (error: Error | null) => void;
  /** Pieces go out in order. @returns a promise where the other side is slow: it settles when there is room again */
  write(...pieces: readonly Uint8Array[]): void | Promise<void>;
  /** No more data for now. */
  pause(): void;
  resume(): void;
  close(): void;
}

export interface StreamServer {
  /** As one would name it to a client. */
  readonly address: StreamAddress;
  close(): Promise<void>;
}
