/** Mice and tablets of a machine, and which of them an event goes to. */
import type { InputEvent, InputPointer } from './interfaces.ts';

export class Pointers {
  /** The newest first; the board's own is the last. */
  private readonly all: InputPointer[] = [];
  /** Buttons go where the last movement went. */
  private last: InputPointer | null = null;

  /** @returns a function that takes it away again */
  add(pointer: InputPointer): () => void {
    this.all.unshift(pointer);
    return () => {
      this.all.splice(this.all.indexOf(pointer), 1);
      if (this.last === pointer) this.last = null;
    };
  }

  /** @param events what happens together @returns whether some device has taken them */
  send(events: readonly InputEvent[]): boolean {
    const kinds = new Set(events.map(({ type }) => type));
    const moves = kinds.has('abs') || kinds.has('rel');
    const fits = (one: InputPointer): boolean =>
      one.listens && (!kinds.has('abs') || one.absolute) && (!kinds.has('rel') || one.relative);
    const chosen = !moves && this.last?.listens === true ? this.last : this.all.find(fits);
    if (chosen === undefined) return false;
    if (moves) this.last = chosen;
    chosen.take(events);
    return true;
  }
}
