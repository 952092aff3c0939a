/** What a drive's options ask for beyond the graph: what happens on errors, and when writes are stable. */
import type { Pieces } from '../host/pieces.ts';
import type { Completion } from '../machine/interfaces.ts';
import { Filter } from './filter.ts';
import type { BlockNode } from './node.ts';

export type OnError = 'report' | 'ignore' | 'stop' | 'enospc';

const isFull = (error: unknown): boolean => (error as { code?: string }).code === 'ENOSPC';

/** `werror` and `rerror`. */
export class ErrorPolicy extends Filter {
  readonly driver: string;
  private readonly onRead: OnError;
  private readonly onWrite: OnError;
  private readonly stop: ((error: Error) => void) | null;
  /** Requests that wait for the machine to go on. */
  private waiting: (() => void)[] = [];

  /** @param stop pauses the machine; null where requests cannot wait */
  constructor(below: BlockNode, onRead: OnError, onWrite: OnError, stop: ((error: Error) => void) | null) {
    super(below);
    this.driver = below.driver;
    this.onRead = onRead;
    this.onWrite = onWrite;
    this.stop = stop;
  }

  override read(offset: number, into: Uint8Array): Completion {
    return this.attempt(() => this.below.read(offset, into), this.onRead);
  }

  override write(offset: number, from: Uint8Array): Completion {
    return this.attempt(() => this.below.write(offset, from), this.onWrite);
  }

  override readPieces(offset: number, into: Pieces): Completion {
    return this.attempt(() => this.below.readPieces(offset, into), this.onRead);
  }

  override writePieces(offset: number, from: Pieces): Completion {
    return this.attempt(() => this.below.writePieces(offset, from), this.onWrite);
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    return this.attempt(() => this.below.writeZeroes(offset, length, mayUnmap), this.onWrite);
  }

  override flush(): Completion {
    return this.attempt(() => this.below.flush(), this.onWrite);
  }

  /** Requests that wait until the machine goes on. */
  get waits(): number {
    return this.waiting.length;
  }

  /** The machine goes on: what has failed is tried again. */
  retry(): void {
    const { waiting } = this;
    this.waiting = [];
    for (const again of waiting) again();
  }

  private attempt(operation: () => Completion, policy: OnError): Completion {
    let running: Completion;
    try {
      running = operation();
    } catch (error) {
      return this.failed(operation, policy, error as Error);
    }
    return running?.catch((error: Error) => this.failed(operation, policy, error));
  }

  private failed(operation: () => Completion, policy: OnError, error: Error): Completion {
    if (policy === 'ignore') return undefined;
    if (this.stop === null || policy === 'report' || (policy === 'enospc' && !isFull(error))) throw error;
    const again = new Promise<void>((resolve) => this.waiting.push(resolve));
    this.stop(error);
    return again.then(() => this.attempt(operation, policy));
  }
}

/** `cache=writethrough`: a write is over when it is stable. */
export class WriteThrough extends Filter {
  readonly driver: string;

  constructor(below: BlockNode) {
    super(below);
    this.driver = below.driver;
  }

  override readPieces(offset: number, into: Pieces): Completion {
    return this.below.readPieces(offset, into);
  }

  override write(offset: number, from: Uint8Array): Completion {
    return this.stable(this.below.write(offset, from));
  }

  override writePieces(offset: number, from: Pieces): Completion {
    return this.stable(this.below.writePieces(offset, from));
  }

  override writeZeroes(offset: number, length: number, mayUnmap: boolean): Completion {
    return this.stable(this.below.writeZeroes(offset, length, mayUnmap));
  }

  private stable(writing: Completion): Completion {
    return writing === undefined ? this.below.flush() : writing.then(() => this.below.flush());
  }
}
