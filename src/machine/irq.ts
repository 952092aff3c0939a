/** Interrupt wires between devices and controllers. */
import type { IrqLine } from './interfaces.ts';

/** An input that several sources drive: high while any of them is. */
export class SharedIrq {
  private readonly levels: boolean[] = [];
  private active = 0;
  private readonly outputs: readonly IrqLine[];

  constructor(...outputs: IrqLine[]) {
    this.outputs = outputs;
  }

  get level(): boolean {
    return this.active > 0;
  }

  /** A new source's line. */
  source(): IrqLine {
    const index = this.levels.push(false) - 1;
    return {
      set: (level) => {
        if (this.levels[index] === level) return;
        this.levels[index] = level;
        const before = this.active;
        this.active += level ? 1 : -1;
        if (before === 0 || this.active === 0) for (const out of this.outputs) out.set(level);
      },
    };
  }
}
