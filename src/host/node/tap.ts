/** TAP interfaces of Linux. Frames are read by a thread of its own: Node.js cannot wait for such files. */
import { closeSync, constants, openSync, writeSync, writevSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import type { TapDevice, TapOptions } from '../network.ts';
import { describeError } from './errors.ts';
import { ioctlValue, library } from './libc.ts';
import { SLOT_SIZE, SLOTS, type TapBatch, type TapReaderData } from './tap-reader.ts';

const DEVICE = '/dev/net/tun';
const TUNSETIFF = 0x4004_54can;
const TUNGETIFF = 0x8004_54d2n;
const TUNSETOFFLOAD = 0x4004_54d0n;
const TUNSETVNETHDRSZ = 0x4004_54d8n;
const IFF_TAP = 0x0002;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** struct ifreq: 16 bytes of name, then the flags. */
const IFREQ_SIZE = 40;
const NAME_SIZE = 16;
const HEADER_SIZE = 10;

/** @throws Error, one line */
export function openTap({ name, fd: given, headers, script, downScript }: TapOptions): TapDevice {
  const c = library();
  if (c === null) throw new Error('TAP interfaces are not available here');
  const request = Buffer.alloc(IFREQ_SIZE);
  let fd = given;
  if (fd === null) {
    try {
      fd = openSync(DEVICE, constants.O_RDWR | constants.O_NONBLOCK);
    } catch (error) {
      throw new Error(`${DEVICE}: ${describeError(error)}`);
    }
    if (name !== null && name.length >= NAME_SIZE) throw new Error(`interface name "${name}" is longer than ${NAME_SIZE - 1}`);
    request.write(name ?? 'tap%d', 'latin1');
    request.writeUInt16LE(IFF_TAP | IFF_NO_PI | (headers ? IFF_VNET_HDR : 0), NAME_SIZE);
    if (c.ioctl(fd, TUNSETIFF, request) !== 0) {
      closeSync(fd);
      throw new Error(`the host does not give us interface ${name ?? 'tap%d'} (not permitted, or in use)`);
    }
  } else if (c.ioctl(fd, TUNGETIFF, request) !== 0) throw new Error(`file descriptor ${fd} is not a TAP interface`);
  const flags = request.readUInt16LE(NAME_SIZE);
  const size = Buffer.alloc(4);
  size.writeInt32LE(HEADER_SIZE);
  if ((flags & IFF_VNET_HDR) !== 0) c.ioctl(fd, TUNSETVNETHDRSZ, size);
  const realName = request.toString('latin1', 0, request.indexOf(0));
  if (script !== null) {
    const failure = runScript(script, realName);
    if (failure !== null) {
      closeSync(fd);
      throw new Error(failure);
    }
  }
  return new LinuxTap(fd, realName, (flags & IFF_VNET_HDR) !== 0, downScript);
}

/** @returns what went wrong */
function runScript(script: string, name: string): string | null {
  const { status, error } = process
    .getBuiltinModule('node:child_process')
    .spawnSync(script, [name], { stdio: ['ignore', 'inherit', 'inherit'] });
  if (error !== undefined) return `network script ${script}: ${describeError(error)}`;
  return status === 0 ? null : `network script ${script} failed with status ${status}`;
}

class LinuxTap implements TapDevice {
  readonly name: string;
  readonly headers: boolean;
  onFrames: ((frames: readonly Uint8Array[]) => void) | null = null;
  private readonly fd: number;
  private readonly reader: Worker;
  private readonly slots = new SharedArrayBuffer(SLOTS * SLOT_SIZE);
  private readonly free = new Int32Array(new SharedArrayBuffer(4)).fill(SLOTS);
  private closed = false;
  private paused = false;
  private readonly held: TapBatch[] = [];
  private readonly downScript: string | null;

  constructor(fd: number, name: string, headers: boolean, downScript: string | null) {
    this.fd = fd;
    this.downScript = downScript;
    this.name = name;
    this.headers = headers;
    this.reader = new Worker(new URL('./tap-reader.ts', import.meta.url), {
      execArgv: ['--no-warnings'],
      workerData: { fd, slots: this.slots, free: this.free } satisfies TapReaderData,
    });
    this.reader.on('message', (batch: TapBatch) => this.receive(batch));
    this.reader.on('error', () => undefined);
  }

  write(header: Uint8Array | null, frame: Uint8Array): boolean {
    try {
      return (header === null ? writeSync(this.fd, frame) : writevSync(this.fd, [header, frame])) > 0;
    } catch {
      return false;
    }
  }

  setOffloads(flags: number): void {
    ioctlValue(this.fd, TUNSETOFFLOAD, flags);
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
    while (!this.paused && this.held.length > 0) this.receive(this.held.shift()!);
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    if (this.downScript !== null) runScript(this.downScript, this.name);
    Atomics.store(this.free, 0, -1);
    Atomics.notify(this.free, 0);
    // The reader still looks at the file: its number must not be given to another one before.
    this.reader.once('exit', () => closeSync(this.fd));
  }

  private receive(batch: TapBatch): void {
    if (this.closed) return;
    if (this.paused) {
      this.held.push(batch);
      return;
    }
    let at = batch.slot * SLOT_SIZE;
    const frames = batch.lengths.map((length) => {
      at += length;
      return new Uint8Array(this.slots, at - length, length);
    });
    this.onFrames?.(frames);
    if (this.closed) return;
    Atomics.add(this.free, 0, 1);
    Atomics.notify(this.free, 0);
  }
}
