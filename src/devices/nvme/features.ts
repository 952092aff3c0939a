/** Features that the driver sets: NVM Express 1.4, 5.21.1. */
import type { DeviceState } from '../../machine/interfaces.ts';
import { StateBlock } from '../state.ts';
import { FEATURE, STATUS, TEMPERATURE } from './spec.ts';

/** Which values are asked for (5.9): current, default, saved, or what can be done with the feature. */
const SELECT = { current: 0, byDefault: 1, saved: 2, capabilities: 3 } as const;
const CHANGEABLE = 1 << 2;

/** Temperature: kelvin (15:0), sensor (19:16, all ones for all), under rather than over (21:20). */
const SENSOR = 0xf;

const featuresPowerOn = (writeCache: boolean) => () => ({
  arbitration: 6,
  power: 0,
  over: TEMPERATURE.warning as number,
  under: 0,
  errorRecovery: 0,
  writeCache,
  coalescing: 0,
  writeAtomicity: 0,
  asyncEvents: 0,
});

export class Features {
  private readonly block: StateBlock<ReturnType<ReturnType<typeof featuresPowerOn>>>;
  private readonly initial: ReturnType<ReturnType<typeof featuresPowerOn>>;
  private readonly queuePairs: number;
  private readonly vectors: number;

  /** @param writeCache as it is after a reset */
  constructor(id: string, queuePairs: number, vectors: number, writeCache: boolean) {
    this.block = new StateBlock(`${id} features`, 1, featuresPowerOn(writeCache));
    this.initial = featuresPowerOn(writeCache)();
    this.queuePairs = queuePairs;
    this.vectors = vectors;
  }

  get writeCache(): boolean {
    return this.block.value.writeCache;
  }

  /** Bits 7:0 let warnings of the health log through. */
  get asyncEvents(): number {
    return this.block.value.asyncEvents;
  }

  get tooHotOrCold(): boolean {
    const { over, under } = this.block.value;
    return TEMPERATURE.now >= over || TEMPERATURE.now <= under;
  }

  reset(): void {
    this.block.reset();
  }

  save(): DeviceState {
    return this.block.save();
  }

  load(state: DeviceState): void {
    this.block.load(state);
  }

  /** @param which word 11, which tells apart features of one kind @returns null when there is no such thing */
  get(feature: number, select: number, which: number): number | null {
    if (select === SELECT.capabilities) return this.value(feature, which, this.initial) === null ? null : CHANGEABLE;
    if (select > SELECT.capabilities) return null;
    return this.value(feature, which, select === SELECT.current ? this.block.value : this.initial);
  }

  private value(feature: number, which: number, from: typeof this.initial): number | null {
    switch (feature) {
      case FEATURE.arbitration:
        return from.arbitration;
      case FEATURE.power:
        return from.power;
      case FEATURE.temperature:
        return threshold(which, from);
      case FEATURE.errorRecovery:
        return from.errorRecovery;
      case FEATURE.writeCache:
        return from.writeCache ? 1 : 0;
      case FEATURE.queues:
        return this.queueCounts;
      case FEATURE.coalescing:
        return from.coalescing;
      case FEATURE.vectorConfiguration:
        return (which & 0xffff) < this.vectors ? (which & 0xffff) | ((which & 0xffff) === 0 ? 1 << 16 : 0) : null;
      case FEATURE.writeAtomicity:
        return from.writeAtomicity;
      case FEATURE.asyncEvents:
        return from.asyncEvents;
      default:
        return null;
    }
  }

  /** @returns status */
  set(feature: number, value: number): number {
    const { value: state } = this.block;
    switch (feature) {
      case FEATURE.arbitration:
        state.arbitration = value;
        return STATUS.success;
      case FEATURE.power:
        // There is one state.
        return (value & 0x1f) === 0 ? STATUS.success : STATUS.invalidField;
      case FEATURE.temperature:
        return this.setThreshold(value);
      case FEATURE.errorRecovery:
        state.errorRecovery = value & 0xffff;
        return STATUS.success;
      case FEATURE.writeCache:
        state.writeCache = (value & 1) !== 0;
        return STATUS.success;
      case FEATURE.queues:
        return (value & 0xffff) === 0xffff || value >>> 16 === 0xffff ? STATUS.invalidField : STATUS.success;
      case FEATURE.coalescing:
        state.coalescing = value & 0xffff;
        return STATUS.success;
      case FEATURE.vectorConfiguration:
        // Nothing is coalesced, for any vector.
        return (value & 0xffff) < this.vectors ? STATUS.success : STATUS.invalidField;
      case FEATURE.writeAtomicity:
        state.writeAtomicity = value & 1;
        return STATUS.success;
      case FEATURE.asyncEvents:
        state.asyncEvents = value;
        return STATUS.success;
      default:
        return STATUS.invalidField;
    }
  }

  /** Word 0 of the completion: what was granted. */
  resultOfSet(feature: number): number {
    return feature === FEATURE.queues ? this.queueCounts : 0;
  }

  /** Completion and submission queues for I/O, less 1. */
  private get queueCounts(): number {
    return (((this.queuePairs - 1) << 16) | (this.queuePairs - 1)) >>> 0;
  }

  private setThreshold(value: number): number {
    const { value: state } = this.block;
    const [sensor, kind] = [(value >>> 16) & SENSOR, (value >>> 20) & 3];
    // Sensor 0 is the composite one, of which there is no other.
    if ((sensor !== 0 && sensor !== SENSOR) || kind > 1) return STATUS.invalidField;
    if (kind === 0) state.over = value & 0xffff;
    else state.under = value & 0xffff;
    return STATUS.success;
  }
}

function threshold(which: number, from: { over: number; under: number }): number | null {
  const kind = (which >>> 20) & 3;
  if (((which >>> 16) & SENSOR) !== 0 || kind > 1) return null;
  return kind === 0 ? from.over : from.under;
}
