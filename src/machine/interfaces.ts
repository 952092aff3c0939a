/**
 * The contracts between a board, its devices and whatever runs the vCPU.
 *
 * Numbers: physical addresses are non-negative JS numbers (exact up to 2^53);
 * register values of 8, 16 and 32 bits are unsigned numbers. 64-bit accesses
 * reach a handler as two 32-bit ones, low half first.
 */
import type { Pieces } from '../host/pieces.ts';

/** A level-triggered interrupt wire; calling it twice with one level is harmless. */
export interface IrqLine {
  set(level: boolean): void;
}

/** Register access of a device, whether by port or by memory. */
export interface IoHandler {
  /** @param offset bytes from the region's start  @param size 1, 2 or 4 */
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
  /** Registers that an accelerator whose vCPU is in another thread may write to later than the guest does. */
  readonly doorbells?: readonly Doorbell[];
  /**
   * Writes may come late: in order, before any other access of the guest's to a device, and before the event loop has its
   * turn. An accelerator may collect them.
   */
  readonly collectsWrites?: boolean;
}

/**
 * A register by which a driver says that there is work for a device (virtio 1.2, 4.1.5.2). Nothing that the driver does
 * next depends on when the device looks; several writes are as good as one, and one too many does no harm.
 */
export interface Doorbell {
  /** Bytes from the region's start. */
  readonly offset: number;
  /** What is written there; null for anything. */
  readonly value: number | null;
  /** Bytes that drivers write; nothing for any number. */
  readonly size?: 2 | 4;
  /** The host's kernel is to answer for it by an eventfd, where there is one that can (`ioeventfd=on`). */
  readonly eventfd?: boolean;
}

/** Values that a device's saved state is made of. */
export type StateValue = number | boolean | string | bigint | Uint8Array | StateValue[] | { [name: string]: StateValue };

/** One device's saved state: named fields with a version of their shape. */
export interface DeviceState {
  version: number;
  fields: { [name: string]: StateValue };
}

/** Whoever has a part of a machine's state: devices, the clock, the vCPU. */
export interface StateOwner {
  /** Unique within the machine, e.g. "serial0". */
  readonly id: string;
  saveState(): DeviceState;
  /** @throws Error naming the owner and the field when the state does not fit. */
  loadState(state: DeviceState): void;
  /** All of the machine's state has been loaded: what was under way when it was saved goes on. */
  afterLoad?(): void;
}

/** What a machine knows of each of its devices. */
export interface Device extends StateOwner {
  /** QEMU's name of the device type, e.g. "isa-serial". */
  readonly type: string;
  /** Something is under way that is no part of its state, and ends by itself within a few turns of the event loop. */
  readonly underWay?: boolean;
  reset(): void;
  /** It has left the machine: what it opened on the host is closed. */
  close?(): void;
}

/** A one-shot timer on a clock. */
export interface Timer {
  /** Arms (or re-arms) the timer. @param deadline virtual nanoseconds */
  arm(deadline: number): void;
  cancel(): void;
  /** Virtual nanoseconds of the deadline, or Infinity when not armed. */
  readonly deadline: number;
}

/** The machine's one virtual clock. It stands still while the machine is paused. */
export interface VirtualClock {
  /** Virtual nanoseconds since the machine was created. */
  now(): number;
  /** @param fire called with the clock's time at or after the deadline */
  timer(fire: (now: number) => void): Timer;
  /** Earliest deadline of all armed timers, or Infinity. */
  nextDeadline(): number;
  /** Fires every timer whose deadline has passed. */
  runTimers(): void;
  /** Until then, time must not pass faster than the guest's instructions account for. @param end virtual nanoseconds */
  paceUntil?(end: number): void;
}

/** What the interrupt controllers need of a vCPU. */
export interface CpuPort {
  /** Some maskable interrupt waits (or no longer waits) at this CPU's controller. */
  setIntr(pending: boolean): void;
  nmi(): void;
  smi(): void;
  init(): void;
  /** Start-up IPI. @param vector page number of the real-mode entry */
  sipi(vector: number): void;
  setA20(enabled: boolean): void;
}

/** What a vCPU needs of its local APIC (which fronts the 8259 pair, too). */
export interface InterruptController {
  /** Acknowledges the highest pending maskable interrupt. @returns its vector, or -1 if it has gone */
  acknowledge(): number;
  /** Task priority as CR8 shows it, 0 to 15. */
  getTpr(): number;
  setTpr(value: number): void;
  /** IA32_APIC_BASE as [low, high] words. */
  getApicBase(): [number, number];
  /** @returns false when the value must raise #GP */
  setApicBase(low: number, high: number): boolean;
  /** x2APIC MSR 800h+index. @returns [low, high], or null for #GP */
  readX2apic(index: number): [number, number] | null;
  writeX2apic(index: number, low: number, high: number): boolean;
  /** IA32_TSC_DEADLINE; the value is in TSC ticks, see `TscSource`. */
  getTscDeadline(): bigint;
  setTscDeadline(value: bigint): void;
}

/** The guest's time-stamp counter, derived from the virtual clock. */
export interface TscSource {
  /** Ticks per second; 1e9 makes one tick one virtual nanosecond. */
  readonly frequency: number;
  read(): bigint;
  /** Writes what `read` gives as two words, the low one first, to `out[at]` and `out[at + 1]`. */
  readWords(out: Int32Array, at: number): void;
  write(value: bigint): void;
  /** Virtual nanoseconds at which the counter reaches `ticks`. */
  toNanoseconds(ticks: bigint): number;
}

/** Why a machine stopped or wants to. */
export type PowerEvent = 'poweroff' | 'reset' | 'panic' | 'debug-exit' | 'internal-error';

/** A byte stream to the outside (terminal, file, socket): the host side of a serial port. */
export interface CharBackend {
  /** Guest to host. Never blocks; @returns false when the host side is full and `onDrain` will be called */
  write(data: Uint8Array): boolean;
  /** Host to guest: the device takes at most as many bytes as it has room for and returns how many it took. */
  onReceive: ((data: Uint8Array) => number) | null;
  onDrain: (() => void) | null;
  /** The device has room again after it took less than it was offered. */
  resume(): void;
  close(): void;
}

/** Optional sink for what a guest does to the board; categories are e.g. "unassigned-io". */
export type Trace = (category: string, line: string) => void;

/** Guest-physical memory as a bus-mastering device sees it. */
export interface GuestMemory {
  /** @param size 1, 2 or 4 */
  read(addr: number, size: number): number;
  write(addr: number, size: number, value: number): void;
  readBytes(addr: number, into: Uint8Array): void;
  writeBytes(addr: number, from: Uint8Array): void;
  /** Memory in place, for devices that move much of it: `ramOffset` says where in it an address lies. */
  readonly ram: Uint8Array;
  /** Another number whenever memory has come, gone or moved, so that offsets must be asked for anew. */
  readonly ramGeneration: number;
  /** @returns offset in `ram` of a range that is writable memory throughout and lies there in one piece, or -1 */
  ramOffset(addr: number, length: number): number;
  /** Bytes of `ram` have been changed: code in them is translated anew. */
  ramChanged(offset: number, length: number): void;
  /** What bytes of `ram` hold matters no more: the host gets their pages back where it can, which read as zeros then. */
  ramReleased(offset: number, length: number): void;
}

/** A write of a device's that stands for an interrupt. */
export interface Msi {
  readonly address: number;
  readonly data: number;
}

/** Where messages go that stand for interrupts (PCI 3.0, 6.8). */
export interface MsiSink {
  /**
   * A write of 32 bits by a device, usually to FEExxxxxh.
   * @param byEventfd the host's kernel is to take it from an eventfd, where there is one that can (`ioeventfd=on`)
   */
  sendMsi(address: number, data: number, byEventfd?: boolean): void;
}

/** Interrupt controllers that stand in for the board's own, in the host's kernel. */
export interface KernelChips extends MsiSink {
  /** @param input of the I/O APIC, 0 to 23; 0 to 15 reach the 8259 pair, too */
  setInput(input: number, level: boolean): void;
  /** The boot processor's LINT1, which is wired to NMI. */
  lint1(): void;
}

/** Local APICs that stand in for the board's own, in the host's kernel, while all other chips are the board's. */
export interface KernelApics extends MsiSink {
  /** The boot processor's LINT1, which is wired to NMI. */
  lint1(): void;
}

/** A handler's place in an address space. */
export interface MappedRegion {
  remove(): void;
  /** What its handler says of doorbells has changed. */
  doorbellsChanged?(): void;
}

/** Where a device may place memory-mapped registers. */
export interface MmioBus {
  addMmio(base: number, size: number, handler: IoHandler, name: string): MappedRegion;
}

/** Properties of a range of ports. */
export interface PortOptions {
  /** Widest access the registers take; wider ones are split. 4 when not given. */
  maxSize?: 1 | 2 | 4;
}

/** Where a device may place port-mapped registers. */
export interface PortBus {
  register(base: number, count: number, handler: IoHandler, name: string, options?: PortOptions): MappedRegion;
}

/** Nothing when an operation is done already, else a promise for its end. Failures throw or reject. */
export type Completion = void | Promise<void>;

/** The data behind a disk, CD or floppy drive. Offsets and lengths are bytes, whole sectors of 512. */
export interface BlockBackend {
  /** Bytes, a multiple of 512. */
  readonly size: number;
  readonly readOnly: boolean;
  read(offset: number, into: Uint8Array): Completion;
  /** The data may be changed by the caller once the operation has ended. */
  write(offset: number, from: Uint8Array): Completion;
  /** The same into and from many places. The pieces must stay as they are until the operation has ended. */
  readPieces(offset: number, into: Pieces): Completion;
  writePieces(offset: number, from: Pieces): Completion;
  /** What has been written before survives the host's crash when this has ended. */
  flush(): Completion;
  /** The contents of this range no longer matter. */
  discard(offset: number, length: number): Completion;
  /**
   * The range reads as zeros; without this, zeros can be written.
   * @param mayUnmap the space it takes may be given back
   */
  writeZeroes?(offset: number, length: number, mayUnmap: boolean): Completion;
  close(): Completion;
}

/** Buttons of a mouse by QMP's names; a turn of its wheel is a button that goes down. */
export const POINTER_BUTTONS = ['left', 'middle', 'right', 'wheel-up', 'wheel-down', 'side', 'extra'] as const;
export type PointerButton = (typeof POINTER_BUTTONS)[number];

/** Something that a pointer does, in the shape of QMP's `InputEvent`. */
export type InputEvent =
  | { readonly type: 'btn'; readonly data: { readonly down: boolean; readonly button: PointerButton } }
  /** To the right, and down. */
  | { readonly type: 'rel'; readonly data: { readonly axis: 'x' | 'y'; readonly value: number } }
  /** From 0, left or at the top, to `POINTER_MAX`. */
  | { readonly type: 'abs'; readonly data: { readonly axis: 'x' | 'y'; readonly value: number } };
export const POINTER_MAX = 0x7fff;

/** A device that a pointer's events may go to. */
export interface InputPointer {
  readonly absolute: boolean;
  readonly relative: boolean;
  /** The guest has a driver for it. */
  readonly listens: boolean;
  take(events: readonly InputEvent[]): void;
}

/** A device that takes memory away from the guest and gives it back. */
export interface MemoryBalloon {
  /** Bytes that the guest has. */
  readonly actual: number;
  /** Asks the guest to make do with so many bytes. */
  setTarget(bytes: number): void;
}

/** A picture: rows from the top, four bytes a pixel (red, green, blue, 255). */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

/** A screen of characters. */
export interface TextScreen {
  readonly columns: number;
  readonly rows: number;
  /** Code (of code page 437) in the low byte, attribute above it, row by row. */
  readonly cells: Uint16Array;
  /** Place of the cursor in `cells`, or -1 when it is off. */
  readonly cursor: number;
}

/** A screen of pixels: how many. Both are 0 while nothing is shown. */
export interface GraphicsScreen {
  readonly width: number;
  readonly height: number;
}

/** What a display adapter shows. */
export interface DisplaySource {
  /** Null while the adapter shows pixels. */
  text(): TextScreen | null;
  /** Null while the adapter shows text. */
  graphics(): GraphicsScreen | null;
  picture(): Picture;
}

/** What a segment's sender may leave to others. Without any of it, frames are complete and at most 1514 bytes long. */
export interface Offloads {
  /** Checksums of TCP and UDP. */
  readonly checksum: boolean;
  /** Cutting TCP segments over IPv4, over IPv6. */
  readonly tso4: boolean;
  readonly tso6: boolean;
  /** Cutting UDP datagrams into IP fragments, into datagrams. */
  readonly ufo: boolean;
  readonly uso: boolean;
}

export const NO_OFFLOADS: Offloads = { checksum: false, tso4: false, tso6: false, ufo: false, uso: false };

/** Values of `PacketOffload.gso`, as in virtio's network header (virtio 1.2, 5.1.6). */
export const GSO_NONE = 0;
export const GSO_TCP4 = 1;
export const GSO_UDP_FRAGMENTS = 3;
export const GSO_TCP6 = 4;
export const GSO_UDP_DATAGRAMS = 5;

/** What is still to be done to a frame; valid during the call that it is given to. */
export interface PacketOffload {
  /** Bytes from the frame's start to where the missing checksum begins to sum, or -1 when none is missing. */
  readonly checksumStart: number;
  /** Bytes from `checksumStart` to the 16-bit field, which holds the pseudo-header's sum (not inverted). */
  readonly checksumOffset: number;
  /** Into what it is to be cut (`GSO_...`). Whatever is to be cut lacks its checksum, too. */
  readonly gso: number;
  /** Bytes of headers that every piece begins with; 0 leaves the network to find out. */
  readonly headerLength: number;
  /** Payload of each piece but the last, bytes; 0 when there is nothing to cut. */
  readonly segmentSize: number;
}

/** A network as a card sees it: Ethernet frames without FCS in both directions. */
export interface PacketBackend {
  /**
   * Card to network. The frame may be reused by the caller when this returns. Answers may come before it returns.
   * @param offload what the card's driver left to others, within `offloads`; null for a complete frame
   * @returns false when the network is full and has not taken the frame; `onWritable` follows
   */
  send(frame: Uint8Array, offload: PacketOffload | null): boolean;
  /**
   * Network to card: set by the card. The frame is valid during the call. A card that does not listen
   * at all takes frames and drops them.
   * @returns false when the card has no room now: the network keeps the frame and goes on after `resume`
   */
  onReceive: ((frame: Uint8Array, offload: PacketOffload | null) => boolean) | null;
  onWritable: (() => void) | null;
  /** The card has room again after it refused a frame. */
  resume(): void;
  /** What the network takes from the card. */
  readonly offloads: Offloads;
  /** What the card's driver takes from the network: set by the card whenever that changes, nothing at first. */
  accepts: Offloads;
  close(): void;
}

/** A card's end of its cable. */
export interface NetworkPort extends PacketBackend {
  /** The cable is plugged in (`set_link`). Without it nothing passes. */
  readonly linkUp: boolean;
  /** Set by the card: told when the cable is pulled or plugged in. */
  onLinkChange: ((up: boolean) => void) | null;
}
