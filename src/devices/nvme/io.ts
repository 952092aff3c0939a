/** Commands of the NVM command set: NVM Express 1.4, chapter 6. */
import { gather } from '../../host/pieces.ts';
import type { BlockBackend, Completion, GuestMemory } from '../../machine/interfaces.ts';
import { Runs } from './runs.ts';
import { ALL_NAMESPACES, address, FIELD, NAMESPACE, NVM, STATUS, UNSUPPORTED_FLAGS } from './spec.ts';

export const COMMAND_SIZE = 64;

/** Zeros for backends that cannot make them, so much at a time. */
const ZEROS = 1 << 20;

/** Word 12: blocks less 1 (15:0), deallocate (25), force unit access (30). */
const BLOCKS = 0xffff;
const DEALLOCATE = 1 << 25;
const FORCE_UNIT_ACCESS = 1 << 30;
/** Dataset management: a range is attributes, blocks (32 bits), first block (64 bits); word 11 says what is asked for. */
const RANGE = 16;
const DATASET_DEALLOCATE = 1 << 2;

/** What the controller is to its commands. */
export interface IoHost {
  readonly memory: GuestMemory;
  readonly disk: BlockBackend;
  /** Bytes of a block, and how many there are. */
  readonly blockSize: number;
  readonly blocks: number;
  /** Bytes of a memory page, and of the most data of a command. */
  readonly page: number;
  readonly maxTransfer: number;
  /** Writes are to be stable when they are over. */
  readonly writeThrough: boolean;
  finish(command: IoCommand, status: number): void;
}

/** One command on its way; objects are used again. */
export class IoCommand {
  /** Submission queue that it came by. */
  queue = 0;
  /** The controller has been reset: nothing may come of it. */
  abandoned = false;
  /** As it lay in the queue. */
  readonly bytes = new Uint8Array(COMMAND_SIZE);
  readonly runs = new Runs();
  private readonly view = new DataView(this.bytes.buffer);
  private readonly host: IoHost;
  private status = 0;
  /** Operations of the backend under way, and one for whoever starts them. */
  private waiting = 0;
  /** Where the data is, if not in place. */
  private copy: Uint8Array | null = null;
  private mustFlush = false;
  private readonly done = (): void => this.release();
  private readonly failed = (): void => {
    this.fail();
    this.release();
  };

  constructor(host: IoHost) {
    this.host = host;
  }

  get id(): number {
    return this.view.getUint16(FIELD.id, true);
  }

  get opcode(): number {
    return this.bytes[FIELD.opcode]!;
  }

  get first(): number {
    return address(this.view, FIELD.word10);
  }

  get blocks(): number {
    return (this.view.getUint32(FIELD.word12, true) & BLOCKS) + 1;
  }

  /** Calls `finish` when it is over, which may be at once. */
  start(): void {
    this.waiting = 1;
    this.status = STATUS.success;
    this.mustFlush = false;
    this.copy = null;
    this.runs.count = this.runs.total = 0;
    this.status = this.begin();
    this.release();
  }

  private begin(): number {
    const { view, opcode, host } = this;
    const name = view.getUint32(FIELD.namespace, true);
    const flush = opcode === NVM.flush;
    if ((this.bytes[FIELD.flags]! & UNSUPPORTED_FLAGS) !== 0) return STATUS.invalidField;
    if (name !== NAMESPACE && !(flush && name === ALL_NAMESPACES)) return STATUS.invalidNamespace;
    const changes = opcode === NVM.write || opcode === NVM.writeZeroes || opcode === NVM.datasetManagement;
    if (changes && host.disk.readOnly) return STATUS.writeProtected;
    switch (opcode) {
      case NVM.flush:
        this.mustFlush = true;
        return STATUS.success;
      case NVM.read:
      case NVM.write:
      case NVM.compare:
        return this.transfer();
      case NVM.writeZeroes:
        return this.writeZeroes();
      case NVM.datasetManagement:
        return this.datasetManagement();
      default:
        return STATUS.invalidOpcode;
    }
  }

  private transfer(): number {
    const { host, runs, view, opcode, blocks, first } = this;
    const length = blocks * host.blockSize;
    if (length > host.maxTransfer) return STATUS.invalidField;
    if (first + blocks > host.blocks) return STATUS.lbaRange;
    const bad = runs.follow(host.memory, address(view, FIELD.prp1), address(view, FIELD.prp2), length, host.page);
    if (bad !== STATUS.success) return bad;
    const offset = first * host.blockSize;
    if (opcode === NVM.write) this.mustFlush = this.stable;
    if (opcode === NVM.compare) this.copy = new Uint8Array(length);
    try {
      this.await(this.move(offset));
    } catch {
      this.fail();
    }
    return this.status;
  }

  private move(offset: number): Completion {
    const { opcode, copy, runs } = this;
    const { disk } = this.host;
    if (copy !== null) return disk.read(offset, copy);
    return opcode === NVM.write ? runs.writeTo(disk, offset) : runs.readFrom(disk, offset);
  }

  private get stable(): boolean {
    return this.host.writeThrough || (this.view.getUint32(FIELD.word12, true) & FORCE_UNIT_ACCESS) !== 0;
  }

  private writeZeroes(): number {
    const { host, first, blocks } = this;
    if (first + blocks > host.blocks) return STATUS.lbaRange;
    const mayUnmap = (this.view.getUint32(FIELD.word12, true) & DEALLOCATE) !== 0;
    this.mustFlush = this.stable;
    try {
      this.await(zeroes(host.disk, first * host.blockSize, blocks * host.blockSize, mayUnmap));
    } catch {
      this.fail();
    }
    return this.status;
  }

  private datasetManagement(): number {
    const { host, runs, view } = this;
    const count = (view.getUint32(FIELD.word10, true) & 0xff) + 1;
    const wanted = view.getUint32(FIELD.word11, true);
    const bad = runs.follow(host.memory, address(view, FIELD.prp1), address(view, FIELD.prp2), count * RANGE, host.page);
    if (bad !== STATUS.success) return bad;
    // The rest are hints.
    if ((wanted & DATASET_DEALLOCATE) === 0) return STATUS.success;
    const bytes = new Uint8Array(count * RANGE);
    gather(runs, bytes);
    const ranges = new DataView(bytes.buffer);
    for (let at = 0; at < bytes.length; at += RANGE) {
      if (address(ranges, at + 8) + ranges.getUint32(at + 4, true) > host.blocks) return STATUS.lbaRange;
    }
    for (let at = 0; at < bytes.length && this.status === STATUS.success; at += RANGE) {
      this.discard(address(ranges, at + 8), ranges.getUint32(at + 4, true));
    }
    return this.status;
  }

  private discard(first: number, blocks: number): void {
    const { disk, blockSize } = this.host;
    if (blocks === 0) return;
    try {
      this.await(disk.discard(first * blockSize, blocks * blockSize));
    } catch {
      this.fail();
    }
  }

  private await(running: Completion): void {
    if (running === undefined) return;
    this.waiting++;
    running.then(this.done, this.failed);
  }

  private fail(): void {
    const { opcode } = this;
    this.status = opcode === NVM.read || opcode === NVM.compare ? STATUS.readError : STATUS.writeFault;
  }

  private release(): void {
    if (--this.waiting > 0) return;
    if (this.abandoned) return;
    if (this.status === STATUS.success && this.mustFlush) return this.flush();
    if (this.status === STATUS.success) this.status = this.deliver();
    this.copy = null;
    this.host.finish(this, this.status);
  }

  private flush(): void {
    this.mustFlush = false;
    this.waiting = 1;
    try {
      this.await(this.host.disk.flush());
    } catch {
      this.fail();
    }
    this.release();
  }

  /** What has been read goes to memory, or is compared with it. */
  private deliver(): number {
    const { opcode, runs, copy } = this;
    if (opcode === NVM.read) runs.changed(this.host.memory);
    if (opcode !== NVM.compare || copy === null) return STATUS.success;
    const own = new Uint8Array(copy.length);
    gather(runs, own);
    return own.every((byte, i) => byte === copy[i]) ? STATUS.success : STATUS.compareFailure;
  }
}

function zeroes(disk: BlockBackend, offset: number, length: number, mayUnmap: boolean): Completion {
  return disk.writeZeroes === undefined ? writeZeros(disk, offset, length) : disk.writeZeroes(offset, length, mayUnmap);
}

async function writeZeros(disk: BlockBackend, offset: number, length: number): Promise<void> {
  const zeros = new Uint8Array(Math.min(length, ZEROS));
  for (let done = 0; done < length; done += zeros.length) {
    await disk.write(offset + done, zeros.subarray(0, Math.min(zeros.length, length - done)));
  }
}
