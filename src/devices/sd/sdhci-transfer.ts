/** Data between a card and the guest: SD Host Controller Simplified Specification 3.00, 1.13 and 3.7. */
import type { Completion, GuestMemory } from '../../machine/interfaces.ts';
import type { SdCard } from './card.ts';
import type { Sdhci, SdhciState } from './sdhci.ts';
import { AT, ERROR, HOST_DMA, MODE, STATUS } from './sdhci-registers.ts';

/** A line of the table (1.13.3): attributes 16, length 16, address 32. */
const LINE = 8;
const LINE_64 = 12;
const ATTRIBUTE = { valid: 1, end: 2, interrupt: 4, action: 0x30, transfer: 0x20, link: 0x30 } as const;
/** Lines that move nothing, one after the other, after which a table is taken for an endless one. */
const MAX_IDLE_LINES = 1024;
/** Steps until the guest has its turn. */
const AT_ONCE = 4096;
/** What lies at no memory is moved in such pieces, bytes. */
const PIECE = 4096;
/** Why ADMA stopped (2.2.24): at a line, at data. */
const ADMA_STATE = { fetch: 1 } as const;
const SMALLEST_BOUNDARY = 4096;

export class SdTransfer {
  private readonly host: Sdhci;
  private readonly memory: GuestMemory;
  private readonly state: SdhciState['transfer'];
  /** What was begun before the last reset is forgotten. */
  private epoch = 0;
  private waiting = false;

  constructor(host: Sdhci, memory: GuestMemory, state: SdhciState['transfer']) {
    this.host = host;
    this.memory = memory;
    this.state = state;
  }

  cancel(): void {
    this.epoch++;
    this.waiting = false;
    this.state.active = false;
    this.state.blockReady = false;
  }

  /** A command with data has been accepted. */
  begin(mode: number): void {
    const { state, host } = this;
    this.cancel();
    const multiple = (mode & MODE.multiple) !== 0;
    const blocks = multiple ? ((mode & MODE.countBlocks) !== 0 ? host.get16(AT.blockCount) : -1) : 1;
    Object.assign(state, {
      ...{ active: true, reading: (mode & MODE.reads) !== 0, dma: (mode & MODE.dma) !== 0, multiple },
      ...{ left: blocks < 0 ? -1 : blocks * this.blockSize, inBlock: 0, suspended: false },
      ...{ address: 0, length: 0, last: false, blockAt: 0, blockReady: false },
    });
  }

  /** Goes on for as long as there is something to do. */
  run(): void {
    for (let steps = 0; steps < AT_ONCE; steps++) {
      const { active, suspended } = this.state;
      if (!active || suspended || this.waiting) return;
      const running = this.step();
      if (running === null) return;
      if (running === undefined) continue;
      const { epoch } = this;
      this.waiting = true;
      running.then(() => {
        if (epoch !== this.epoch) return;
        this.waiting = false;
        this.run();
      });
      return;
    }
    this.host.runLater();
  }

  /** The driver has written an address: what waited at a boundary goes on. */
  resume(): void {
    if (!this.state.active || !this.state.suspended) return;
    this.state.suspended = false;
    this.run();
  }

  // --- The port.

  readPort(size: number): number {
    const { state } = this;
    if (!state.active || !state.reading || state.dma || !state.blockReady) return 0;
    let value = 0;
    for (let i = 0; i < size; i++) value |= (state.block[state.blockAt + i] ?? 0) << (8 * i);
    this.portMoved(size);
    return value >>> 0;
  }

  writePort(size: number, value: number): void {
    const { state } = this;
    if (!state.active || state.reading || state.dma || !state.blockReady) return;
    for (let i = 0; i < size && state.blockAt + i < this.blockSize; i++) state.block[state.blockAt + i] = value >>> (8 * i);
    this.portMoved(size);
  }

  private portMoved(size: number): void {
    const { state } = this;
    state.blockAt += size;
    if (state.blockAt < this.blockSize) return;
    state.blockReady = false;
    if (state.reading) this.moved(this.blockSize);
    this.run();
  }

  /** Fills the port's block from the card, or empties it. */
  private portStep(card: SdCard): Completion | null {
    const { state } = this;
    const block = state.block.subarray(0, this.blockSize);
    const offer = (): void => {
      state.blockAt = 0;
      state.blockReady = true;
      this.host.raise(state.reading ? STATUS.bufferRead : STATUS.bufferWrite);
    };
    if (state.reading) return after(card.read(block), () => this.epoch, offer);
    if (state.blockAt < this.blockSize) {
      offer();
      return null;
    }
    return after(
      card.write(block),
      () => this.epoch,
      () => {
        state.blockAt = 0;
        this.moved(block.length);
      },
    );
  }

  // --- Steps.

  /** @returns null when there is nothing to do for now */
  private step(): Completion | null {
    const { state, host } = this;
    const { card } = host.bus;
    if (state.left === 0) return this.finish();
    // The port's block is the driver's turn.
    if (state.blockReady) return null;
    if (card === null || this.blockSize === 0 || !(state.reading ? card.sends : card.takes)) {
      this.cancel();
      host.raise(0, ERROR.dataTimeout);
      return null;
    }
    if (!state.dma) return this.portStep(card);
    const kind = host.get16(AT.host) & HOST_DMA.mask;
    return kind === HOST_DMA.sdma ? this.simpleStep(card) : this.tableStep(card, kind === HOST_DMA.adma64 ? LINE_64 : LINE);
  }

  private finish(): null {
    this.cancel();
    this.host.transferDone();
    return null;
  }

  /** SDMA stops at each boundary, and says so. */
  private simpleStep(card: SdCard): Completion | null {
    const { state, host } = this;
    const address = host.get32(AT.systemAddress);
    const boundary = SMALLEST_BOUNDARY << ((host.get16(AT.blockSize) >> 12) & 7);
    const room = boundary - (address % boundary);
    const length = state.left < 0 ? room : Math.min(state.left, room);
    return this.move(card, address, length, (moved) => {
      host.put32(AT.systemAddress, address + moved);
      if (moved < room || state.left === 0 || !state.active) return;
      state.suspended = true;
      host.raise(STATUS.dma);
    });
  }

  private tableStep(card: SdCard, size: number): Completion | null {
    const { state } = this;
    if (state.length === 0 && !this.nextLine(size)) return null;
    const length = state.left < 0 ? state.length : Math.min(state.left, state.length);
    return this.move(card, state.address, length, (moved) => {
      state.address += moved;
      state.length -= moved;
    });
  }

  /** Looks for the next line that names memory. @returns false when there is none */
  private nextLine(size: number): boolean {
    const { host, memory, state } = this;
    for (let i = 0; i < MAX_IDLE_LINES && !state.last; i++) {
      const at = host.get32(AT.admaAddress) + (size === LINE_64 ? host.get32(AT.admaAddress + 4) * 2 ** 32 : 0);
      const attributes = memory.read(at, 2);
      if ((attributes & ATTRIBUTE.valid) === 0) break;
      const length = memory.read(at + 2, 2);
      const address = memory.read(at + 4, 4) + (size === LINE_64 ? memory.read(at + 8, 4) * 2 ** 32 : 0);
      const action = attributes & ATTRIBUTE.action;
      const next = action === ATTRIBUTE.link ? address : at + size;
      host.put32(AT.admaAddress, next % 2 ** 32);
      if (size === LINE_64) host.put32(AT.admaAddress + 4, Math.floor(next / 2 ** 32));
      state.last = (attributes & ATTRIBUTE.end) !== 0;
      if ((attributes & ATTRIBUTE.interrupt) !== 0) host.raise(STATUS.dma);
      if (action !== ATTRIBUTE.transfer) continue;
      state.address = address;
      state.length = length === 0 ? 0x10000 : length;
      return true;
    }
    // A table may end what nobody has counted.
    if (state.last && state.left < 0) this.finish();
    else {
      this.cancel();
      host.put16(AT.admaError, ADMA_STATE.fetch);
      host.raise(0, ERROR.adma);
    }
    return false;
  }

  /** Moves a piece that lies together in memory. @param then told how many bytes that was */
  private move(card: SdCard, address: number, most: number, then: (moved: number) => void): Completion {
    const { memory, state } = this;
    let length = most;
    let at = memory.ramOffset(address, length);
    if (at < 0) {
      length = Math.min(most, PIECE - (address % PIECE));
      at = memory.ramOffset(address, length);
    }
    const piece = at >= 0 ? memory.ram.subarray(at, at + length) : new Uint8Array(length);
    if (!state.reading && at < 0) memory.readBytes(address, piece);
    const done = (): void => {
      if (state.reading && at >= 0) memory.ramChanged(at, length);
      else if (state.reading) memory.writeBytes(address, piece);
      this.moved(length);
      then(length);
    };
    return after(state.reading ? card.read(piece) : card.write(piece), () => this.epoch, done);
  }

  /** Counts what has been moved, for the driver and for the card. */
  private moved(bytes: number): void {
    const { state, host, blockSize } = this;
    if (state.left > 0) state.left -= bytes;
    const total = state.inBlock + bytes;
    const blocks = Math.floor(total / blockSize);
    state.inBlock = total - blocks * blockSize;
    if (blocks === 0) return;
    const counted = state.multiple && (host.get16(AT.transferMode) & MODE.countBlocks) !== 0;
    if (counted) host.put16(AT.blockCount, Math.max(0, host.get16(AT.blockCount) - blocks));
    host.bus.card?.blocksMoved(blocks, state.multiple);
  }

  private get blockSize(): number {
    return Math.min(this.host.get16(AT.blockSize) & 0xfff, this.state.block.length);
  }
}

/** Does something when an operation is over, unless the transfer is another one by then. */
function after(running: Completion, epoch: () => number, then: () => void): Completion {
  if (running === undefined) return then();
  const before = epoch();
  return running.then(() => {
    if (epoch() === before) then();
  });
}
