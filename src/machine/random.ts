/** Sources for a guest's random number instructions. */
import type { DeviceState, StateOwner } from './interfaces.ts';

/** The host's own randomness, fetched in batches. */
export function hostRandom(): () => number {
  const pool = new Uint32Array(256);
  let left = 0;
  return () => {
    if (left === 0) {
      crypto.getRandomValues(pool);
      left = pool.length;
    }
    return pool[--left]! | 0;
  };
}

/** The same sequence in every run, for machines whose runs must be identical (xorshift, Marsaglia 2003). */
export class RepeatableRandom {
  /** Not 0. */
  state: number;

  constructor(seed = 0x2545f491) {
    this.state = seed | 0 || 1;
  }

  readonly next = (): number => {
    this.state ^= this.state << 13;
    this.state ^= this.state >>> 17;
    this.state ^= this.state << 5;
    return this.state;
  };
}

/** Where a machine's random numbers come from: its devices', and its vCPU's instructions. */
export class RandomSources implements StateOwner {
  readonly id = 'machine/random';
  readonly devices: () => number;
  readonly cpu: () => number;
  /** Of the devices, of the vCPU; none where the host's numbers serve. */
  private readonly repeatable: { [name: string]: RepeatableRandom };

  /** @param repeatable every run is to get the same numbers */
  constructor(repeatable: boolean) {
    this.repeatable = repeatable ? { devices: new RepeatableRandom(), cpu: new RepeatableRandom() } : {};
    const { devices, cpu } = this.repeatable;
    this.devices = devices?.next ?? hostRandom();
    this.cpu = cpu?.next ?? hostRandom();
  }

  saveState(): DeviceState {
    const fields = Object.entries(this.repeatable).map(([name, { state }]) => [name, state]);
    return { version: 1, fields: Object.fromEntries(fields) };
  }

  loadState({ fields }: DeviceState): void {
    for (const [name, source] of Object.entries(this.repeatable)) {
      const state = fields[name];
      if (typeof state !== 'number' || (state | 0) !== state || state === 0) {
        throw new Error(`random: field "${name}" is not a number of 32 bits other than 0`);
      }
      source.state = state;
    }
  }
}
