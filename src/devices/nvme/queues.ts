/** Submission and completion queues in memory: NVM Express 1.4, 4.1. */
import type { GuestMemory } from '../../machine/interfaces.ts';
import { COMMAND_SIZE } from './io.ts';

const COMPLETION_SIZE = 16;

const place = { live: false, base: 0, size: 0, head: 0, tail: 0 };

export const submissionPowerOn = () => ({
  ...place,
  completion: 0,
  /** It goes as soon as its commands are over, which is what the command of that identifier waits for. */
  deleting: false,
  deletingId: 0,
});
export const completionPowerOn = () => ({ ...place, phase: 1, vector: 0, interrupts: false });

export type SubmissionState = ReturnType<typeof submissionPowerOn>;
export type CompletionState = ReturnType<typeof completionPowerOn>;

export class SubmissionQueue {
  readonly index: number;
  readonly state: SubmissionState;
  /** Commands on their way. */
  running = 0;

  constructor(index: number, state: SubmissionState) {
    this.index = index;
    this.state = state;
  }

  get hasMore(): boolean {
    const { live, deleting, head, tail } = this.state;
    return live && !deleting && head !== tail;
  }

  /** Takes the next command. @returns false when the queue is not in memory */
  take(memory: GuestMemory, into: Uint8Array): boolean {
    const { state } = this;
    const at = memory.ramOffset(state.base + state.head * COMMAND_SIZE, COMMAND_SIZE);
    if (at < 0) return false;
    const { ram } = memory;
    for (let i = 0; i < COMMAND_SIZE; i++) into[i] = ram[at + i]!;
    state.head = state.head + 1 === state.size ? 0 : state.head + 1;
    return true;
  }
}

export class CompletionQueue {
  readonly index: number;
  readonly state: CompletionState;
  /** Places that are kept for commands on their way. */
  reserved = 0;
  /** There are entries that no interrupt has told of. */
  untold = false;
  /** Commands wait for room. */
  stalled = false;

  constructor(index: number, state: CompletionState) {
    this.index = index;
    this.state = state;
  }

  /** Places that nothing will need: one stays empty, so that a full queue differs from an empty one. */
  get room(): number {
    const { size, head, tail } = this.state;
    return size - 1 - ((tail - head + size) % size) - this.reserved;
  }

  get hasEntries(): boolean {
    return this.state.live && this.state.head !== this.state.tail;
  }

  /**
   * An entry (4.6): result (32 bits), reserved, head and number of the submission queue, identifier and status.
   * @returns false when the queue is not in memory
   */
  push(memory: GuestMemory, result: number, queue: SubmissionQueue, id: number, status: number): boolean {
    const { state } = this;
    const at = state.base + state.tail * COMPLETION_SIZE;
    if (memory.ramOffset(at, COMPLETION_SIZE) < 0) return false;
    memory.write(at, 4, result);
    memory.write(at + 4, 4, 0);
    memory.write(at + 8, 4, (queue.state.head | (queue.index << 16)) >>> 0);
    // The phase, which makes it valid, comes last.
    memory.write(at + 12, 4, (id | ((state.phase | (status << 1)) << 16)) >>> 0);
    state.tail++;
    if (state.tail === state.size) {
      state.tail = 0;
      state.phase ^= 1;
    }
    this.untold = true;
    return true;
  }
}
