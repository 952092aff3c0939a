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
