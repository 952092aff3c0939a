/** Admin commands: NVM Express 1.4, chapter 5. */
import { scatter } from '../../host/pieces.ts';
import type { GuestMemory } from '../../machine/interfaces.ts';
import type { Features } from './features.ts';
import { CNS, controllerData, descriptorList, type Identity, namespaceData, namespaceList } from './identify.ts';
import type { Logs } from './logs.ts';
import { Runs } from './runs.ts';
import { ADMIN, ALL_NAMESPACES, address, FIELD, MAX_ENTRIES, NAMESPACE, STATUS, UNSUPPORTED_FLAGS } from './spec.ts';

/** The command's completion comes later, or has been put in its place. */
export const PENDING = -1;

export type NewQueue = { id: number; base: number; size: number };

/** What the controller is to admin commands. */
export interface AdminHost {
  readonly memory: GuestMemory;
  readonly identity: Identity;
  readonly features: Features;
  readonly logs: Logs;
  /** Bytes of a memory page. */
  readonly page: number;
  readonly queuePairs: number;
  /** Interrupt vectors that there are now. */
  readonly vectors: number;
  /** Entries of I/O queues have the sizes that they must have. */
  readonly entrySizesFit: boolean;
  submissionLives(id: number): boolean;
  completionLives(id: number): boolean;
  completionInUse(id: number): boolean;
  createCompletion(queue: NewQueue, vector: number | null): void;
  createSubmission(queue: NewQueue, completion: number): void;
  /** @returns status, or `PENDING` */
  deleteSubmission(queue: number, command: number): number;
  deleteCompletion(id: number): void;
  /** @returns status, or `PENDING` */
  waitForEvent(command: number): number;
  logRead(page: number): void;
  featuresChanged(): void;
}

/** Word 11 of the creation of queues: in one piece, interrupts; its upper half is a vector or a completion queue. */
const CONTIGUOUS = 1;
const INTERRUPTS = 2;
const RETAIN_EVENT = 1 << 15;
const SAVE = 1 << 31;

export class AdminCommands {
  /** Of the last command. */
  result = 0;
  private readonly host: AdminHost;
  private readonly runs = new Runs();

  constructor(host: AdminHost) {
    this.host = host;
  }

  /** @returns status, or `PENDING` */
  execute(view: DataView): number {
    this.result = 0;
    if ((view.getUint8(FIELD.flags) & UNSUPPORTED_FLAGS) !== 0) return STATUS.invalidField;
    const id = view.getUint16(FIELD.id, true);
    const word10 = view.getUint32(FIELD.word10, true);
    switch (view.getUint8(FIELD.opcode)) {
      case ADMIN.identify:
        return this.identify(view, word10 & 0xff);
      case ADMIN.getLogPage:
        return this.getLogPage(view, word10);
      case ADMIN.setFeatures:
        return this.setFeatures(view, word10);
      case ADMIN.getFeatures:
        return this.getFeatures(view, word10);
      case ADMIN.createCompletion:
        return this.createCompletion(view);
      case ADMIN.createSubmission:
        return this.createSubmission(view);
      case ADMIN.deleteSubmission:
        return this.deleteSubmission(word10 & 0xffff, id);
      case ADMIN.deleteCompletion:
        return this.deleteCompletion(word10 & 0xffff);
      case ADMIN.abort:
        // What is with the backend already is not to be had back (5.1): bit 0 says that nothing was aborted.
        this.result = 1;
        return STATUS.success;
      case ADMIN.asyncEvent:
        return this.host.waitForEvent(id);
      default:
        return STATUS.invalidOpcode;
    }
  }

  private identify(view: DataView, kind: number): number {
    const name = view.getUint32(FIELD.namespace, true);
    const data = this.identifyData(kind, name);
    return typeof data === 'number' ? data : this.give(view, data);
  }

  private identifyData(kind: number, name: number): Uint8Array | number {
    const { identity } = this.host;
    switch (kind) {
      case CNS.controller:
        return controllerData(identity);
      case CNS.namespace:
      case CNS.allocatedNamespace:
        if (name === ALL_NAMESPACES && kind === CNS.allocatedNamespace) return STATUS.invalidNamespace;
        return name === NAMESPACE || name === ALL_NAMESPACES ? namespaceData(identity) : STATUS.invalidNamespace;
      case CNS.active:
      case CNS.allocated:
        return name >= ALL_NAMESPACES - 1 ? STATUS.invalidNamespace : namespaceList(name);
      case CNS.descriptors:
        return name === NAMESPACE ? descriptorList(identity) : STATUS.invalidNamespace;
      default:
        return STATUS.invalidField;
    }
  }

  /** Words 10 to 13: page (7:0), retain the event (15), words less 1 in two halves, and where to begin. */
  private getLogPage(view: DataView, word10: number): number {
    const page = word10 & 0xff;
    const { logs } = this.host;
    const data = logs.page(page);
    if (data === null) return STATUS.invalidLogPage;
    const words = (view.getUint16(FIELD.word11, true) * 2 ** 16 + (word10 >>> 16) + 1) * 4;
    const offset = address(view, FIELD.word12);
    if (offset % 4 !== 0 || offset > data.length) return STATUS.invalidField;
    const status = this.give(view, data.subarray(offset, offset + Math.min(words, data.length - offset)));
    if (status === STATUS.success && (word10 & RETAIN_EVENT) === 0) this.host.logRead(page);
    return status;
  }

  private setFeatures(view: DataView, word10: number): number {
    if ((word10 & SAVE) !== 0) return STATUS.notSaveable;
    const { features } = this.host;
    const status = features.set(word10 & 0xff, view.getUint32(FIELD.word11, true));
    if (status !== STATUS.success) return status;
    this.result = features.resultOfSet(word10 & 0xff);
    this.host.featuresChanged();
    return status;
  }

  private getFeatures(view: DataView, word10: number): number {
    const found = this.host.features.get(word10 & 0xff, (word10 >>> 8) & 7, view.getUint32(FIELD.word11, true));
    if (found === null) return STATUS.invalidField;
    this.result = found;
    return STATUS.success;
  }

  /** @returns what is wrong with the place or the size of a new queue */
  private newQueue(view: DataView): NewQueue | number {
    const { host } = this;
    const id = view.getUint16(FIELD.word10, true);
    const size = view.getUint16(FIELD.word10 + 2, true) + 1;
    const base = address(view, FIELD.prp1);
    if (id === 0 || id > host.queuePairs) return STATUS.invalidQueue;
    if (size < 2 || size > MAX_ENTRIES || !host.entrySizesFit) return STATUS.invalidQueueSize;
    if (base % host.page !== 0) return STATUS.prpOffset;
    if ((view.getUint16(FIELD.word11, true) & CONTIGUOUS) === 0) return STATUS.invalidField;
    return { id, base, size };
  }

  private createCompletion(view: DataView): number {
    const { host } = this;
    const queue = this.newQueue(view);
    if (typeof queue === 'number') return queue;
    if (host.completionLives(queue.id)) return STATUS.invalidQueue;
    const vector = view.getUint16(FIELD.word11 + 2, true);
    if (vector >= host.vectors) return STATUS.invalidVector;
    const interrupts = (view.getUint16(FIELD.word11, true) & INTERRUPTS) !== 0;
    host.createCompletion(queue, interrupts ? vector : null);
    return STATUS.success;
  }

  private createSubmission(view: DataView): number {
    const { host } = this;
    const queue = this.newQueue(view);
    if (typeof queue === 'number') return queue;
    if (host.submissionLives(queue.id)) return STATUS.invalidQueue;
    const completion = view.getUint16(FIELD.word11 + 2, true);
    if (completion === 0 || !host.completionLives(completion)) return STATUS.completionQueueInvalid;
    host.createSubmission(queue, completion);
    return STATUS.success;
  }

  private deleteSubmission(queue: number, command: number): number {
    if (queue === 0 || !this.host.submissionLives(queue)) return STATUS.invalidQueue;
    return this.host.deleteSubmission(queue, command);
  }

  private deleteCompletion(queue: number): number {
    const { host } = this;
    if (queue === 0 || !host.completionLives(queue)) return STATUS.invalidQueue;
    if (host.completionInUse(queue)) return STATUS.invalidQueueDeletion;
    host.deleteCompletion(queue);
    return STATUS.success;
  }

  /** Puts data where a command says. */
  private give(view: DataView, data: Uint8Array): number {
    const { host, runs } = this;
    const { memory, page } = host;
    const status = runs.follow(memory, address(view, FIELD.prp1), address(view, FIELD.prp2), data.length, page);
    if (status !== STATUS.success) return status;
    scatter(data, runs);
    runs.changed(memory);
    return STATUS.success;
  }
}
