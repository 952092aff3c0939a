/** What the controller tells by itself, to requests that wait for it: NVM Express 1.4, 5.2. */
import { EVENT, EVENTS, STATUS } from './spec.ts';
import { PENDING } from './admin.ts';

export type EventState = {
  /** Bits by index in `EVENTS` of what waits to be told. */
  pending: number;
  /** Bits of types that were told of, until their log page is read. */
  told: number;
  /** Requests that wait, the first `count` of the list. */
  count: number;
  waiting: number[];
};

export const eventsPowerOn = (most: number): EventState => ({
  pending: 0,
  told: 0,
  count: 0,
  waiting: new Array<number>(most).fill(0),
});

/** Bit of the asynchronous event configuration (5.21.1.11) that lets temperatures through. */
const TEMPERATURE_WANTED = 1 << 1;

export class Events {
  private readonly state: EventState;
  private readonly complete: (id: number, result: number) => boolean;

  /** @param complete ends a request; false when there is no room for that now */
  constructor(state: EventState, complete: (id: number, result: number) => boolean) {
    this.state = state;
    this.complete = complete;
  }

  /** A request comes. @returns status, or `PENDING` */
  wait(id: number): number {
    const { state } = this;
    if (state.count === state.waiting.length) return STATUS.asyncLimit;
    state.waiting[state.count++] = id;
    this.tell();
    return PENDING;
  }

  raise(event: number, configuration: number): void {
    if (event === EVENT.temperature && (configuration & TEMPERATURE_WANTED) === 0) return;
    this.state.pending |= 1 << event;
    this.tell();
  }

  /** A log page has been read: there may be more of what it tells about. */
  logRead(page: number): void {
    for (const { log, type } of EVENTS) if (log === page) this.state.told &= ~(1 << type);
    this.tell();
  }

  /** Tells what can be told. */
  tell(): void {
    const { state } = this;
    for (let i = 0; i < EVENTS.length && state.count > 0; i++) {
      const { type, information, log } = EVENTS[i]!;
      if ((state.pending & (1 << i)) === 0 || (state.told & (1 << type)) !== 0) continue;
      if (!this.complete(state.waiting[0]!, type | (information << 8) | (log << 16))) return;
      state.pending &= ~(1 << i);
      state.told |= 1 << type;
      state.waiting.copyWithin(0, 1);
      state.count--;
    }
  }
}
