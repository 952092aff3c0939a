/**
 * What the rest of the project needs of the host it runs on. `#host` resolves to the module of the
 * host at hand (package.json, "imports").
 */

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

/** A file of the host's that is read and written in place. */
export interface BlockFile {
  /** Bytes it had when it was opened. */
  readonly size: number;
  /** @returns bytes read, fewer than asked for at the file's end @throws Error */
  read(offset: number, into: Uint8Array): number;
  /** @throws Error */
  write(offset: number, from: Uint8Array): void;
  /** Settles when the data written before is on stable storage. */
  sync(): Promise<void>;
  /** The same, waited for. @throws Error */
  syncNow(): void;
  close(): void;
}
