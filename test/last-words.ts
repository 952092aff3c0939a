/** For tests whose machine ends before they are through: how it ended, and what it had said about itself until then. */
import type { Machine } from 'virelay';

export class LastWords {
  private readonly lines: string[] = [];
  private readonly machine: Machine;

  constructor(machine: Machine) {
    this.machine = machine;
    machine.on('warning', (line) => this.lines.push(line));
    machine.on('trace', (lines) => this.lines.push(...lines));
  }

  /**
   * @param awaited what had not come
   * @param text what the guest had printed
   * @returns the error to throw, once the machine has ended
   */
  async ended(awaited: string, text: string): Promise<Error> {
    const end = JSON.stringify(await this.machine.ended);
    return new Error([`the machine ended before ${awaited} came (${end}):`, ...this.lines, text.slice(-4000)].join('\n'));
  }
}
