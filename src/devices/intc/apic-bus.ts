/** What carries interrupt messages between I/O APICs, local APICs and MSI writers. */
import type { Msi, MsiSink } from '../../machine/interfaces.ts';

/** Delivery modes: Intel SDM volume 3, section 12.5.1. */
export const DELIVERY = {
  fixed: 0,
  lowest: 1,
  smi: 2,
  nmi: 4,
  init: 5,
  startUp: 6,
  extInt: 7,
} as const;

export type ApicMessage = {
  delivery: number;
  vector: number;
  level: boolean;
  logical: boolean;
  /** 8 bits from xAPIC senders, 32 bits from x2APIC ones. */
  destination: number;
};

const MSI_BASE = 0xfee00000;
const MSI_LOGICAL = 1 << 2;
/** Trigger mode, and the level that goes with it. */
const MSI_LEVEL = 0xc000;

/** A message as a write to memory (SDM volume 3, section 12.11). */
export function msiOf({ delivery, vector, level, logical, destination }: ApicMessage): Msi {
  return {
    address: MSI_BASE + (destination & 0xff) * 0x1000 + (logical ? MSI_LOGICAL : 0),
    data: vector | (delivery << 8) | (level ? MSI_LEVEL : 0),
  };
}

export interface ApicBusAgent {
  /** True when the message's destination includes this agent. */
  matches(logical: boolean, destination: number): boolean;
  deliver(message: ApicMessage): void;
  /** For lowest-priority arbitration. */
  readonly processorPriority: number;
}

export interface EoiListener {
  endOfInterrupt(vector: number): void;
}

export class ApicBus {
  readonly agents: ApicBusAgent[] = [];
  /** Where messages go instead while the local APICs are elsewhere. */
  outside: MsiSink | null = null;
  private readonly eoiListeners: EoiListener[] = [];

  addEoiListener(listener: EoiListener): void {
    this.eoiListeners.push(listener);
  }

  send(message: ApicMessage): void {
    if (this.outside !== null) {
      const { address, data } = msiOf(message);
      return this.outside.sendMsi(address, data);
    }
    this.sendTo(
      this.agents.filter((agent) => agent.matches(message.logical, message.destination)),
      message,
    );
  }

  sendTo(targets: readonly ApicBusAgent[], message: ApicMessage): void {
    if (message.delivery !== DELIVERY.lowest) {
      for (const target of targets) target.deliver(message);
      return;
    }
    let best: ApicBusAgent | undefined;
    for (const target of targets) {
      if (best === undefined || target.processorPriority < best.processorPriority) best = target;
    }
    best?.deliver(message);
  }

  /** A level-triggered interrupt was ended: its source may raise it again. */
  broadcastEoi(vector: number): void {
    for (const listener of this.eoiListeners) listener.endOfInterrupt(vector);
  }

  /** A memory write to FEExxxxxh (SDM volume 3, section 12.11). */
  sendMsi(address: number, data: number): void {
    this.send({
      delivery: (data >>> 8) & 7,
      vector: data & 0xff,
      level: (data & 0x8000) !== 0,
      logical: (address & 4) !== 0,
      destination: (address >>> 12) & 0xff,
    });
  }
}
