/** Which requests to drives are under way: the event loop hears of their end, so it must have its turn often then. */
import type { BlockBackend, Completion } from './interfaces.ts';

export class BlockActivity {
  private count = 0;
  /** The first request of several has begun. */
  onBusy: (() => void) | null = null;

  get busy(): boolean {
    return this.count > 0;
  }

  /** @returns the same backend, whose requests are counted */
  watch(backend: BlockBackend): BlockBackend {
    return new WatchedBackend(backend, this);
  }

  /** Counts a request until it has ended. @returns it */
  follow(request: Completion): Completion {
    if (request === undefined) return undefined;
    this.count++;
    if (this.count === 1) this.onBusy?.();
    request.then(this.over, this.over);
    return request;
  }

  private readonly over = (): void => {
    this.count--;
  };
}

class WatchedBackend implements BlockBackend {
  readonly writeZeroes?: (offset: number, length: number, mayUnmap: boolean) => Completion;
  private readonly backend: BlockBackend;
  private readonly activity: BlockActivity;

  constructor(backend: BlockBackend, activity: BlockActivity) {
    this.backend = backend;
    this.activity = activity;
    if (backend.writeZeroes !== undefined) {
      this.writeZeroes = (offset, length, mayUnmap) => activity.follow(backend.writeZeroes!(offset, length, mayUnmap));
    }
  }

  get size(): number {
    return this.backend.size;
  }

  get readOnly(): boolean {
    return this.backend.readOnly;
  }

  read(offset: number, into: Uint8Array): Completion {
    return this.activity.follow(this.backend.read(offset, into));
  }

  write(offset: number, from: Uint8Array): Completion {
    return this.activity.follow(this.backend.write(offset, from));
  }

  flush(): Completion {
    return this.activity.follow(this.backend.flush());
  }

  discard(offset: number, length: number): Completion {
    return this.activity.follow(this.backend.discard(offset, length));
  }

  close(): Completion {
    return this.backend.close();
  }
}
