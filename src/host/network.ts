/** The host's sockets, as networks for machines need them. Nothing here blocks. */

/** Why a stream or datagram could not go on. */
export type NetworkFailure = 'refused' | 'unreachable' | 'timed-out' | 'reset' | 'other';

/** Where a socket of the host's is, or is to be. */
export type Endpoint = { readonly address: string; readonly port: number } | { readonly path: string };

/** What a stream tells its user. */
export interface StreamEvents {
  onConnect?(): void;
  /** @param data valid during the call */
  onData(data: Uint8Array): void;
  /** The other side will send no more. */
  onEnd(): void;
  /** What `write` did not take at once has been taken. */
  onDrain(): void;
  /** The last event. @param failure null when both directions have ended in order */
  onClose(failure: NetworkFailure | null): void;
}

/** A byte stream to some other program: a TCP or Unix socket, or a process. */
export interface HostStream {
  /**
   * One write at a time: after `false` not before `onDrain`.
   * @returns true when the data may be reused now; false when it must stay as it is until `onDrain`
   */
  write(data: Uint8Array): boolean;
  /** Nothing more will be written. */
  end(): void;
  pause(): void;
  resume(): void;
  /** Ends both directions at once, with a reset where there is such a thing. No event follows. */
  reset(): void;
}

export interface Listener {
  /** TCP: the port, which matters when 0 was asked for. */
  readonly port: number;
  close(): void;
}

/** A stream that somebody else has begun; events come once they are set. */
export interface Accepted {
  /** Null for Unix sockets. */
  readonly peer: { readonly address: string; readonly port: number } | null;
  start(events: StreamEvents): HostStream;
  refuse(): void;
}

export interface DatagramEvents {
  /** @param address text; the sender's path for Unix sockets  @param data valid during the call */
  onData(data: Uint8Array, address: string, port: number): void;
  /** The last datagram to some place has met with this. */
  onFailure?(failure: NetworkFailure): void;
}

export interface DatagramOptions {
  readonly family: 4 | 6 | 'unix';
  /** Null for a place that the host chooses. */
  readonly bind: Endpoint | null;
  /** Only from and to there; failures that the host learns of are told then. */
  readonly connect?: Endpoint;
  /** Group to join, and the address of the interface to do so on. */
  readonly multicast?: { readonly group: string; readonly local: string | null };
}

export interface HostDatagrams {
  readonly port: number;
  /** The data may be reused when this returns. @param to null on a connected socket */
  send(data: Uint8Array, to: Endpoint | null): void;
  close(): void;
}

/** Files below a folder, and none outside. */
export interface ServedFolder {
  /** @returns null when there is no such file @throws Error when the path leads out of the folder or cannot be read */
  open(path: string): ServedFile | null;
}

export interface ServedFile {
  readonly size: number;
  /** @returns bytes read @throws Error */
  read(offset: number, into: Uint8Array): number;
  close(): void;
}

/** A TAP interface of the host's: frames in and out. */
export interface TapDevice {
  readonly name: string;
  /** Every frame begins with a virtio network header of 10 bytes. */
  readonly headers: boolean;
  /** @param frames valid during the call */
  onFrames: ((frames: readonly Uint8Array[]) => void) | null;
  /** @param header of 10 bytes where there are `headers`, else null  @returns false when the host has no room: the frame is lost */
  write(header: Uint8Array | null, frame: Uint8Array): boolean;
  /** What of a guest's work the interface may leave undone (with `headers`): TUN_F_... bits. */
  setOffloads(flags: number): void;
  /** No more frames are wanted until `resume`. */
  pause(): void;
  resume(): void;
  close(): void;
}

export interface TapOptions {
  /** Name, or a pattern with %d; null for the host's choice. */
  readonly name: string | null;
  /** An open interface instead. */
  readonly fd: number | null;
  readonly headers: boolean;
  /** Programs that are run with the interface's name, to set it up and to take it down; null for none. */
  readonly script: string | null;
  readonly downScript: string | null;
}

export interface HostNetwork {
  connect(to: Endpoint, from: Endpoint | null, events: StreamEvents): HostStream;
  /** @throws Error, one line; also by `onFailure` when it shows later @param onReady called once it listens */
  listen(
    at: Endpoint,
    onStream: (stream: Accepted) => void,
    outcome: { onReady?(): void; onFailure(error: Error): void },
  ): Listener;
  /** @throws Error, one line */
  datagrams(
    options: DatagramOptions,
    events: DatagramEvents,
    outcome: { onReady?(port: number): void; onFailure(error: Error): void },
  ): HostDatagrams;
  /** Sockets that send ICMP echo requests, where the host lets us: null where it does not. */
  ping(family: 4 | 6, onReply: (message: Uint8Array) => void): HostDatagrams | null;
  /** Addresses of the host's name servers, as text. */
  resolvers(): readonly string[];
  /** A command with its standard input and output as a stream. */
  command(line: string, events: StreamEvents): HostStream;
  folder(path: string): ServedFolder;
  /** @throws Error, one line */
  tap(options: TapOptions): TapDevice;
  /** Bytes appended to a file that starts empty. @throws Error */
  appendFile(path: string): { write(data: Uint8Array): void; close(): void };
}
