/** An NVMe controller with one namespace: NVM Express 1.4. */
import type { BlockBackend, DeviceState, GuestMemory, Timer, VirtualClock } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { AdminCommands, type AdminHost, type NewQueue, PENDING } from './admin.ts';
import { Events, eventsPowerOn } from './events.ts';
import { Features } from './features.ts';
import type { Identity } from './identify.ts';
import { COMMAND_SIZE, IoCommand, type IoHost } from './io.ts';
import { Logs } from './logs.ts';
import { CompletionQueue, completionPowerOn, SubmissionQueue, submissionPowerOn } from './queues.ts';
import * as spec from './spec.ts';

const { CC, CSTS, EVENT, REGISTER, STATUS } = spec;

/** I/O commands on their way at a time. */
const MAX_RUNNING = 256;
/** Work of one doorbell, in bytes of data; a command counts for no less than the smallest. The rest is done a little later. */
const BUDGET = 8 << 20;
const LEAST_COST = 128 << 10;

export type NvmeOptions = {
  backend: BlockBackend;
  serial: string;
  /** Pairs of queues for I/O. */
  queuePairs: number;
  /** Interrupt vectors. */
  vectors: number;
  /** Most data of a command: pages of 4 KiB, as a power of two, from 1 to 9. */
  mdts: number;
  /** Asynchronous event requests at a time, less 1. */
  aerl: number;
  /** Bytes, powers of two from 512 up. */
  logicalBlockSize: number;
  physicalBlockSize: number;
  writeCache: boolean;
  eui64: bigint;
};

export type NvmeParts = { id: string; memory: GuestMemory; clock: VirtualClock };

/** How the controller interrupts. */
export interface InterruptPort {
  /** Vectors are messages, rather than bits behind one pin. */
  readonly messages: boolean;
  raise(vector: number): void;
  setPin(level: boolean): void;
}

const powerOn = (pairs: number, aerl: number) => () => ({
  mask: 0,
  configuration: 0,
  status: 0,
  adminSizes: 0,
  adminSubmission: [0, 0],
  adminCompletion: [0, 0],
  /** Disabled, but commands are still on their way. */
  stopping: false,
  submissions: Array.from({ length: pairs + 1 }, submissionPowerOn),
  completions: Array.from({ length: pairs + 1 }, completionPowerOn),
  events: eventsPowerOn(aerl + 1),
  /** Commands on their way, and the queues that they came by; 0 for none. */
  commands: new Uint8Array(MAX_RUNNING * COMMAND_SIZE),
  commandQueues: new Array<number>(MAX_RUNNING).fill(0),
});

export class NvmeController implements IoHost, AdminHost {
  readonly memory: GuestMemory;
  readonly disk: BlockBackend;
  readonly identity: Identity;
  readonly features: Features;
  readonly logs: Logs;
  readonly queuePairs: number;
  readonly blockSize: number;
  readonly blocks: number;

  private readonly id: string;
  private readonly options: NvmeOptions;
  private readonly port: InterruptPort;
  private readonly block: StateBlock<ReturnType<ReturnType<typeof powerOn>>>;
  private readonly submissions: SubmissionQueue[];
  private readonly completions: CompletionQueue[];
  private readonly events: Events;
  private readonly admin = new AdminCommands(this);
  private readonly adminCommand = new DataView(new ArrayBuffer(COMMAND_SIZE));
  private readonly adminBytes = new Uint8Array(this.adminCommand.buffer);
  /** Goes on with what a doorbell left. */
  private readonly later: Timer;
  private running = new Set<IoCommand>();
  private free: IoCommand[] = [];
  /** Commands of a saved state, to be started again. */
  private restart: IoCommand[] = [];
  private untold: CompletionQueue[] = [];
  /** Level of the pin, or null when it is not known. */
  private pin: boolean | null = null;
  /** Whoever is at work tells of interrupts at the end. */
  private busy = false;
  private tellingSoon = false;
  private starved = false;
  private epoch = 0;

  constructor({ id, memory, clock }: NvmeParts, options: NvmeOptions, port: InterruptPort) {
    const { backend, queuePairs, logicalBlockSize } = options;
    this.id = id;
    this.memory = memory;
    this.options = options;
    this.port = port;
    this.disk = backend;
    this.queuePairs = queuePairs;
    this.blockSize = logicalBlockSize;
    this.blocks = Math.floor(backend.size / logicalBlockSize);
    this.identity = {
      serial: options.serial,
      mdts: options.mdts,
      aerl: options.aerl,
      physicalBlockSize: options.physicalBlockSize,
      eui64: options.eui64,
      readOnly: backend.readOnly,
      blockSize: logicalBlockSize,
      blocks: this.blocks,
    };
    this.block = new StateBlock(id, 1, powerOn(queuePairs, options.aerl));
    const { value } = this.block;
    this.submissions = value.submissions.map((state, i) => new SubmissionQueue(i, state));
    this.completions = value.completions.map((state, i) => new CompletionQueue(i, state));
    this.features = new Features(id, queuePairs, options.vectors, options.writeCache);
    this.logs = new Logs(id, clock, backend.readOnly, () => this.features.tooHotOrCold);
    this.events = new Events(value.events, (event, result) => this.completeEvent(event, result));
    this.later = clock.timer(() => this.continue());
  }

  // --- Registers.

  readRegister(at: number): number {
    const { value } = this.block;
    switch (at) {
      case REGISTER.capLow:
        return spec.CAP_LOW >>> 0;
      case REGISTER.capHigh:
        return spec.CAP_HIGH;
      case REGISTER.version:
        return spec.VERSION;
      case REGISTER.maskSet:
      case REGISTER.maskClear:
        return value.mask;
      case REGISTER.configuration:
        return value.configuration;
      case REGISTER.status:
        return value.status;
      case REGISTER.adminSizes:
        return value.adminSizes;
      case REGISTER.adminSubmission:
      case REGISTER.adminSubmission + 4:
        return value.adminSubmission[(at >> 2) & 1]!;
      case REGISTER.adminCompletion:
      case REGISTER.adminCompletion + 4:
        return value.adminCompletion[(at >> 2) & 1]!;
      default:
        return 0;
    }
  }

  writeRegister(at: number, written: number): void {
    if (at >= REGISTER.doorbells) return this.doorbell((at - REGISTER.doorbells) >> 2, written & 0xffff);
    const { value } = this.block;
    switch (at) {
      case REGISTER.maskSet:
        value.mask = (value.mask | written) >>> 0;
        return this.drivePin();
      case REGISTER.maskClear:
        value.mask = (value.mask & ~written) >>> 0;
        return this.drivePin();
      case REGISTER.configuration:
        return this.configure(written & CC.writable);
      case REGISTER.adminSizes:
        value.adminSizes = written & 0x0fff0fff;
        return;
      case REGISTER.adminSubmission:
      case REGISTER.adminSubmission + 4:
        value.adminSubmission[(at >> 2) & 1] = written >>> 0;
        return;
      case REGISTER.adminCompletion:
      case REGISTER.adminCompletion + 4:
        value.adminCompletion[(at >> 2) & 1] = written >>> 0;
    }
  }

  private configure(written: number): void {
    const { value } = this.block;
    const was = value.configuration;
    value.configuration = written;
    const enabled = (written & CC.enable) !== 0;
    if (((was & CC.enable) !== 0) !== enabled) {
      if (enabled) this.enable();
      else this.disable();
    }
    if ((written & CC.shutdown) === 0) value.status &= ~CSTS.shutdown;
    else if ((was & CC.shutdown) === 0) this.shutDown();
  }

  private enable(): void {
    const { value } = this.block;
    // It starts when what was on its way is over.
    if (value.stopping) return;
    const submission = join64(value.adminSubmission);
    const completion = join64(value.adminCompletion);
    const sizes = [(value.adminSizes & 0xfff) + 1, (value.adminSizes >>> 16) + 1] as const;
    const shift = (value.configuration >>> CC.pageAt) & 0xf;
    const fits = shift <= spec.MAX_PAGE_SHIFT && (value.configuration & CC.commandSet) === 0;
    const aligned = submission % this.page === 0 && completion % this.page === 0;
    if (!fits || !aligned || sizes[0] < 2 || sizes[1] < 2) return this.fatal();
    this.open(this.completions[0]!, completion, sizes[1], 0);
    this.openSubmission({ id: 0, base: submission, size: sizes[0] }, 0);
    value.status = (value.status & ~CSTS.shutdown) | CSTS.ready;
  }

  /** The controller is not ready before nothing more comes to memory (7.3.2). */
  private disable(): void {
    const { value } = this.block;
    value.stopping = true;
    if (this.running.size === 0) this.stopped();
  }

  private stopped(): void {
    const { value } = this.block;
    const { configuration, adminSizes, status } = value;
    const [submission, completion] = [[...value.adminSubmission], [...value.adminCompletion]];
    this.clear();
    // Those of the admin queues are the registers that a controller reset leaves alone.
    Object.assign(value, { configuration, adminSizes, status: status & CSTS.shutdown });
    value.adminSubmission.splice(0, 2, ...submission);
    value.adminCompletion.splice(0, 2, ...completion);
    if ((configuration & CC.enable) !== 0) this.enable();
  }

  private clear(): void {
    this.epoch++;
    this.block.reset();
    this.features.reset();
    for (const queue of this.submissions) queue.running = 0;
    for (const queue of this.completions) {
      queue.reserved = 0;
      queue.untold = queue.stalled = false;
    }
    this.untold.length = this.restart.length = 0;
    this.starved = false;
    this.later.cancel();
    this.drivePin();
  }

  /** What was written is to be safe before the status says so (7.6.2). */
  private shutDown(): void {
    const { value } = this.block;
    value.status = (value.status & ~CSTS.shutdown) | CSTS.shutdownBusy;
    const { epoch } = this;
    const done = (): void => {
      const still = epoch === this.epoch && (value.status & CSTS.shutdown) === CSTS.shutdownBusy;
      if (still) value.status = (value.status & ~CSTS.shutdown) | CSTS.shutdownDone;
    };
    try {
      const running = this.disk.flush();
      if (running === undefined) done();
      else running.then(done, done);
    } catch {
      done();
    }
  }

  /** Nothing works any more until the driver resets the controller. */
  private fatal(): void {
    this.block.value.status |= CSTS.fatal;
  }

  private get works(): boolean {
    const { status, stopping } = this.block.value;
    return (status & (CSTS.ready | CSTS.fatal)) === CSTS.ready && !stopping;
  }

  get page(): number {
    return 4096 << Math.min(spec.MAX_PAGE_SHIFT, (this.block.value.configuration >>> CC.pageAt) & 0xf);
  }

  get maxTransfer(): number {
    // It counts in the smallest pages (5.15.2.2).
    return 4096 << this.options.mdts;
  }

  get writeThrough(): boolean {
    return !this.features.writeCache;
  }

  get vectors(): number {
    return this.port.messages ? this.options.vectors : 1;
  }

  get entrySizesFit(): boolean {
    const { configuration } = this.block.value;
    const submission = (configuration >>> CC.submissionSizeAt) & 0xf;
    return submission === spec.SUBMISSION_SHIFT && ((configuration >>> CC.completionSizeAt) & 0xf) === spec.COMPLETION_SHIFT;
  }

  // --- Queues.

  private open(queue: CompletionQueue, base: number, size: number, vector: number | null): void {
    Object.assign(queue.state, {
      ...completionPowerOn(),
      live: true,
      base,
      size,
      vector: vector ?? 0,
      interrupts: vector !== null,
    });
    queue.reserved = 0;
    queue.untold = queue.stalled = false;
  }

  private openSubmission({ id, base, size }: NewQueue, completion: number): void {
    const queue = this.submissions[id]!;
    Object.assign(queue.state, { ...submissionPowerOn(), live: true, base, size, completion });
    queue.running = 0;
  }

  submissionLives(id: number): boolean {
    return this.submissions[id]?.state.live === true;
  }

  completionLives(id: number): boolean {
    return this.completions[id]?.state.live === true;
  }

  completionInUse(id: number): boolean {
    return this.submissions.some(({ state }) => state.live && state.completion === id);
  }

  createCompletion({ id, base, size }: NewQueue, vector: number | null): void {
    this.open(this.completions[id]!, base, size, vector);
  }

  createSubmission(queue: NewQueue, completion: number): void {
    this.openSubmission(queue, completion);
  }

  deleteSubmission(index: number, command: number): number {
    const queue = this.submissions[index]!;
    const { state } = queue;
    if (state.deleting) return STATUS.invalidQueue;
    if (queue.running === 0) {
      state.live = false;
      return STATUS.success;
    }
    state.deleting = true;
    state.deletingId = command;
    this.completions[0]!.reserved++;
    return PENDING;
  }

  deleteCompletion(id: number): void {
    this.completions[id]!.state.live = false;
    this.drivePin();
  }

  // --- Doorbells.

  private doorbell(index: number, written: number): void {
    if (!this.works) return;
    this.busy = true;
    if ((index & 1) === 0) this.newTail(this.submissions[index >> 1], written);
    else this.newHead(this.completions[index >> 1], written);
    this.busy = false;
    this.tell();
  }

  private newTail(queue: SubmissionQueue | undefined, tail: number): void {
    if (queue?.state.live !== true) return this.raiseEvent(EVENT.doorbellRegister);
    if (tail >= queue.state.size) return this.raiseEvent(EVENT.doorbellValue);
    queue.state.tail = tail;
    this.process(queue);
  }

  private newHead(queue: CompletionQueue | undefined, head: number): void {
    if (queue?.state.live !== true) return this.raiseEvent(EVENT.doorbellRegister);
    const { state } = queue;
    const used = (state.tail - state.head + state.size) % state.size;
    if (head >= state.size || (head - state.head + state.size) % state.size > used) return this.raiseEvent(EVENT.doorbellValue);
    state.head = head;
    if (queue.index === 0) this.events.tell();
    if (!queue.stalled) return;
    queue.stalled = false;
    for (const one of this.submissions) if (one.state.completion === queue.index) this.process(one);
  }

  private continue(): void {
    this.busy = true;
    for (const command of this.restart.splice(0)) command.start();
    for (const queue of this.submissions) this.process(queue);
    this.busy = false;
    this.tell();
  }

  /** Takes commands, as long as there is room for what comes of them. */
  private process(queue: SubmissionQueue): void {
    let budget = BUDGET;
    while (queue.hasMore && this.works) {
      if (budget <= 0) return this.later.arm(0);
      const completion = this.completions[queue.state.completion]!;
      if (completion.room <= 0) {
        completion.stalled = true;
        return;
      }
      const cost = queue.index === 0 ? this.startAdmin(queue) : this.startIo(queue, completion);
      if (cost === 0) return;
      budget -= cost;
    }
  }

  /** @returns what it costs; 0 when nothing was taken */
  private startAdmin(queue: SubmissionQueue): number {
    if (!queue.take(this.memory, this.adminBytes)) {
      this.fatal();
      return 0;
    }
    const { adminCommand, admin } = this;
    const status = admin.execute(adminCommand);
    const id = adminCommand.getUint16(spec.FIELD.id, true);
    if (status !== PENDING) this.complete(queue, admin.result, id, status);
    return LEAST_COST;
  }

  private startIo(queue: SubmissionQueue, completion: CompletionQueue): number {
    if (this.running.size >= MAX_RUNNING) {
      this.starved = true;
      return 0;
    }
    const command = this.free.pop() ?? new IoCommand(this);
    if (!queue.take(this.memory, command.bytes)) {
      this.free.push(command);
      this.fatal();
      return 0;
    }
    this.hold(command, queue, completion);
    command.start();
    return Math.max(LEAST_COST, command.runs.total);
  }

  private hold(command: IoCommand, queue: SubmissionQueue, completion: CompletionQueue): void {
    command.queue = queue.index;
    this.running.add(command);
    queue.running++;
    completion.reserved++;
  }

  // --- Completions.

  finish(command: IoCommand, status: number): void {
    const queue = this.submissions[command.queue]!;
    this.running.delete(command);
    queue.running--;
    this.completions[queue.state.completion]!.reserved--;
    if (status === STATUS.success) this.logs.count(command.opcode, command.runs.total);
    if (!this.block.value.stopping) this.complete(queue, 0, command.id, status);
    this.free.push(command);
    if (queue.state.deleting && queue.running === 0) this.deleted(queue);
    if (this.starved) {
      this.starved = false;
      this.later.arm(0);
    }
    if (!this.busy) this.tellSoon();
    if (this.block.value.stopping && this.running.size === 0) this.stopped();
  }

  private deleted({ state }: SubmissionQueue): void {
    state.live = state.deleting = false;
    this.completions[0]!.reserved--;
    if (!this.block.value.stopping) this.complete(this.submissions[0]!, 0, state.deletingId, STATUS.success);
  }

  private complete(queue: SubmissionQueue, result: number, id: number, status: number): void {
    const completion = this.completions[queue.state.completion]!;
    if (!completion.untold) this.untold.push(completion);
    if (!completion.push(this.memory, result, queue, id, status)) this.fatal();
  }

  private completeEvent(id: number, result: number): boolean {
    if (!this.works || this.completions[0]!.room <= 0) return false;
    this.complete(this.submissions[0]!, result, id, STATUS.success);
    return true;
  }

  /** What ends within one turn of the event loop is one interrupt. */
  private tellSoon(): void {
    if (this.tellingSoon) return;
    this.tellingSoon = true;
    queueMicrotask(() => {
      this.tellingSoon = false;
      this.tell();
    });
  }

  private tell(): void {
    const { untold, port } = this;
    for (const queue of untold) {
      queue.untold = false;
      if (queue.state.interrupts && port.messages) port.raise(queue.state.vector);
    }
    untold.length = 0;
    this.drivePin();
  }

  /** Also when messages have been turned on or off. */
  drivePin(): void {
    const level = !this.port.messages && this.someWaits();
    if (level === this.pin) return;
    this.pin = level;
    this.port.setPin(level);
  }

  /** There are entries, not masked, that the driver has not taken. */
  private someWaits(): boolean {
    const { mask } = this.block.value;
    return this.completions.some((queue) => {
      const { interrupts, vector } = queue.state;
      return interrupts && queue.hasEntries && (mask & (1 << vector)) === 0;
    });
  }

  // --- Events, and what admin commands change.

  waitForEvent(command: number): number {
    return this.events.wait(command);
  }

  logRead(page: number): void {
    this.events.logRead(page);
  }

  featuresChanged(): void {
    if (this.features.tooHotOrCold) this.raiseEvent(EVENT.temperature);
  }

  private raiseEvent(event: number): void {
    this.events.raise(event, this.features.asyncEvents);
  }

  // --- Reset and state.

  /** Of the whole function: what is on its way is forgotten. */
  reset(): void {
    for (const command of this.running) command.abandoned = true;
    this.running.clear();
    this.clear();
  }

  save(): DeviceState {
    const { value } = this.block;
    value.commands.fill(0);
    value.commandQueues.fill(0);
    [...this.running].forEach(({ bytes, queue }, i) => {
      value.commands.set(bytes, i * COMMAND_SIZE);
      value.commandQueues[i] = queue;
    });
    return this.block.save();
  }

  load(state: DeviceState): void {
    this.block.load(checked(this.id, state, this.queuePairs));
    for (const command of this.running) command.abandoned = true;
    this.running.clear();
    this.epoch++;
    this.pin = null;
    this.untold.length = this.restart.length = 0;
    this.starved = false;
    const { value } = this.block;
    for (const queue of this.submissions) queue.running = 0;
    for (const queue of this.completions) {
      queue.reserved = 0;
      queue.stalled = true;
      queue.untold = false;
    }
    this.completions[0]!.reserved = value.submissions.filter(({ deleting }) => deleting).length;
    value.commandQueues.forEach((index, i) => {
      if (index === 0) return;
      const command = new IoCommand(this);
      command.bytes.set(value.commands.subarray(i * COMMAND_SIZE, (i + 1) * COMMAND_SIZE));
      const queue = this.submissions[index]!;
      this.hold(command, queue, this.completions[queue.state.completion]!);
      this.restart.push(command);
    });
    if ((value.status & CSTS.shutdown) === CSTS.shutdownBusy) this.shutDown();
    // Memory may not be loaded yet.
    this.later.arm(0);
  }
}

const join64 = ([low, high]: number[]): number => high! * 2 ** 32 + low!;

type Place = { live?: unknown; size?: unknown; head?: unknown; tail?: unknown; completion?: unknown };

/** @throws Error when queues of a saved state make no sense */
function checked(id: string, state: DeviceState, pairs: number): DeviceState {
  const { submissions, completions, commandQueues } = state.fields;
  const within = (value: unknown, limit: number): boolean =>
    Number.isInteger(value) && Number(value) >= 0 && Number(value) < limit;
  const fits = ({ live, size, head, tail, completion = 0 }: Place): boolean =>
    live !== true ||
    (within(size, spec.MAX_ADMIN_ENTRIES + 1) &&
      within(head, Number(size)) &&
      within(tail, Number(size)) &&
      within(completion, pairs + 1));
  const lists = [submissions, completions];
  const good = lists.every((list) => Array.isArray(list) && list.every((one) => typeof one === 'object' && fits(one as Place)));
  const places = Array.isArray(commandQueues) && commandQueues.every((index) => within(index, pairs + 1));
  if (!good || !places) throw new Error(`${id}: the saved queues make no sense`);
  return state;
}
