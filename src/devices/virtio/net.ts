/** Network device: virtio 1.2, section 5.1. */
import { NO_OFFLOADS, type PacketBackend, type PacketOffload } from '../../machine/interfaces.ts';
import type { Chain } from './chain.ts';
import { put16, readBytes } from './config-space.ts';
import { VirtioDevice, type VirtioParts } from './device.ts';
import { DEVICE, FEATURE as COMMON, featureSet, hasFeature } from './features.ts';
import { NetFilter } from './net-filter.ts';
import {
  BUFFERS_AT,
  driverOffloads,
  FEATURE,
  fillHeader,
  GUEST_FEATURES,
  HEADER_SIZE,
  hostFeatures,
  LEGACY_HEADER_SIZE,
  SentOffload,
} from './net-header.ts';
import { FlowTable } from './net-flows.ts';
import type { Virtqueue } from './queue.ts';
import { StateBlock } from '../state.ts';

/** Configuration space (5.1.4). */
const CONFIG = { mac: 0, status: 6, pairs: 8, mtu: 10 } as const;
const CONFIG_SIZE = 12;
const LINK_UP = 1;
const ANNOUNCE = 2;

/** A segment that is still to be cut: 64 KiB of IP and what comes before. */
const LARGEST_FRAME = 65536 + 256;
const CONTROL_SIZE = 64;
/** Longest command: two full tables of addresses, and then some. */
const LARGEST_COMMAND = 65536;

/** Control queue (5.1.6.5): class, command, data; and an answer. */
const CONTROL = { rx: 0, mac: 1, vlan: 2, announce: 3, multiQueue: 4, offloads: 5 } as const;
const MAC_COMMAND = { tables: 0, address: 1 } as const;
const VLAN_COMMAND = { add: 0, remove: 1 } as const;
const ANSWER = { ok: 0, error: 1 } as const;

export type NetOptions = {
  backend: PacketBackend | null;
  mac: Uint8Array;
  pairs: number;
  rxSize: number;
  txSize: number;
  /** Bytes, or 0 for none that it tells of. */
  mtu: number;
};

const powerOn = () => ({ pairs: 1, announcing: false, guestOffloads: 0n, offloadsSet: false });

export class VirtioNet extends VirtioDevice {
  readonly deviceType = DEVICE.net;
  readonly configSize = CONFIG_SIZE;
  readonly filter: NetFilter;
  private readonly backend: PacketBackend | null;
  private readonly pairs: number;
  private readonly mtu: number;
  private readonly registers = new StateBlock('virtio-net', 1, powerOn);
  private readonly flows = new FlowTable();
  private readonly header = new Uint8Array(HEADER_SIZE);
  private readonly sent = new SentOffload();
  private scratch = new Uint8Array(2048);
  /** Chains that a frame being received goes to. */
  private readonly parts: Chain[] = [];
  /** A frame was refused: the driver's next buffers are good news. */
  private starved = false;
  /** Frames are being sent, whose answers may come at once. */
  private sending = false;
  private flushing = false;

  constructor(parts: VirtioParts, { backend, mac, pairs, rxSize, txSize, mtu }: NetOptions) {
    const sizes = Array.from({ length: pairs }, () => [rxSize, txSize]).flat();
    super(parts, [...sizes, CONTROL_SIZE]);
    this.backend = backend;
    this.pairs = pairs;
    this.mtu = mtu;
    this.filter = new NetFilter(parts.id, mac);
    if (backend === null) return;
    backend.onReceive = (frame, offload) => this.receive(frame, offload);
    backend.onWritable = () => this.sendAll();
  }

  /** The link partner is asked to learn where this card is: after a migration. */
  announce(): void {
    if (!this.has(FEATURE.guestAnnounce)) return;
    this.registers.value.announcing = true;
    this.configChanged();
  }

  override readConfig(offset: number, size: number): number {
    const bytes = new Uint8Array(CONFIG_SIZE);
    bytes.set(this.filter.mac, CONFIG.mac);
    const link = this.backend === null ? 0 : LINK_UP;
    put16(bytes, CONFIG.status, link | (this.registers.value.announcing ? ANNOUNCE : 0));
    put16(bytes, CONFIG.pairs, this.pairs);
    put16(bytes, CONFIG.mtu, this.mtu);
    return readBytes(bytes, offset, size);
  }

  /** Drivers of old set the address byte by byte. */
  override writeConfig(offset: number, size: number, value: number): void {
    if (!this.state.legacy || this.has(FEATURE.controlMac)) return;
    for (let i = 0; i < size && offset + i < 6; i++) this.filter.mac[offset + i] = value >>> (8 * i);
  }

  protected deviceFeatures(): bigint {
    const offloads = this.backend?.offloads ?? NO_OFFLOADS;
    return featureSet(
      ...[FEATURE.mac, FEATURE.mergedBuffers, FEATURE.status, FEATURE.controlQueue, FEATURE.controlRx],
      ...[FEATURE.controlVlan, FEATURE.controlRxExtra, FEATURE.guestAnnounce, FEATURE.controlMac],
      ...hostFeatures(offloads),
      ...(offloads.checksum ? [...GUEST_FEATURES, FEATURE.guestOffloads] : []),
      ...(this.pairs > 1 ? [FEATURE.multiQueue] : []),
      ...(this.mtu > 0 ? [FEATURE.mtu] : []),
    );
  }

  protected override deviceState() {
    const blocks = { filter: this.filter.state, registers: this.registers };
    return {
      save: () => ({
        version: 1,
        fields: { filter: blocks.filter.save().fields, registers: blocks.registers.save().fields },
      }),
      load: ({ version, fields }: { version: number; fields: { [name: string]: unknown } }) => {
        blocks.filter.load({ version, fields: fields['filter'] as never });
        blocks.registers.load({ version, fields: fields['registers'] as never });
      },
    };
  }

  protected override onActivate(): void {
    this.takeFeatures();
    this.backend?.resume();
  }

  protected override onLoad(): void {
    this.takeFeatures();
    this.starved = false;
  }

  /** Frames that waited for a network that was full. */
  override afterLoad(): void {
    this.sendAll();
  }

  protected override onReset(): void {
    this.filter.reset();
    this.registers.reset();
    this.starved = false;
    if (this.backend !== null) this.backend.accepts = NO_OFFLOADS;
  }

  protected queueNotified(queue: Virtqueue): void {
    if (queue.index === this.controlIndex) return this.control(queue);
    if (queue.index % 2 === 1) return this.send(queue);
    if (!this.starved) return;
    this.starved = false;
    this.backend?.resume();
  }

  private get controlIndex(): number {
    return this.has(FEATURE.multiQueue) ? 2 * this.pairs : 2;
  }

  private get headerSize(): number {
    return this.has(COMMON.version1) || this.has(FEATURE.mergedBuffers) ? HEADER_SIZE : LEGACY_HEADER_SIZE;
  }

  private takeFeatures(): void {
    this.filter.filtersVlans = this.has(FEATURE.controlVlan);
    const { guestOffloads, offloadsSet } = this.registers.value;
    const has = (feature: number): boolean => this.has(feature) && (!offloadsSet || hasFeature(guestOffloads, feature));
    if (this.backend !== null && this.running) this.backend.accepts = driverOffloads(has);
  }

  // --- Sending.

  private sendAll(): void {
    if (!this.running) return;
    for (let i = 1; i < this.registers.value.pairs * 2; i += 2) if (this.queues[i]!.ready) this.send(this.queues[i]!);
  }

  private send(queue: Virtqueue): void {
    if (this.sending) return;
    this.sending = true;
    try {
      for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
        if (!this.sendFrame(queue, chain)) {
          queue.unpop(chain);
          break;
        }
        queue.push(chain, 0);
      }
    } finally {
      this.sending = false;
    }
    queue.flush();
    this.flushReceived();
  }

  /** @returns false when the network is full */
  private sendFrame(queue: Virtqueue, chain: Chain): boolean {
    const { header, headerSize, backend } = this;
    const length = chain.readable - headerSize;
    // What is no frame, or too much of one, is lost as on a real wire.
    if (length < 14 || length > LARGEST_FRAME || backend === null) return true;
    chain.read(0, header, headerSize);
    const offload = this.sent.parse(header, length);
    if (offload < 0) return true;
    const at = chain.readableAt(headerSize, length);
    const frame = at >= 0 ? chain.view(at, length) : this.gather(chain, headerSize, length);
    if (this.pairs > 1) this.flows.note(frame, queue.index >> 1);
    return backend.send(frame, offload === 0 ? null : this.sent);
  }

  private gather(chain: Chain, from: number, length: number): Uint8Array {
    if (this.scratch.length < length) this.scratch = new Uint8Array(LARGEST_FRAME);
    const frame = this.scratch.subarray(0, length);
    chain.read(from, frame);
    return frame;
  }

  // --- Receiving.

  private receive(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (!this.running || !this.filter.passes(frame)) return true;
    const pair = this.pairs > 1 ? this.flows.pairOf(frame) % this.registers.value.pairs : 0;
    const queue = this.queues[2 * pair]!;
    if (!queue.ready) return true;
    const { headerSize, header, parts } = this;
    const total = headerSize + frame.length;
    const room = this.takeBuffers(queue, total);
    if (room < total) return this.refuse(queue);
    fillHeader(header, offload);
    header[BUFFERS_AT] = parts.length;
    header[BUFFERS_AT + 1] = parts.length >> 8;
    let done = 0;
    for (let i = 0; i < parts.length; i++) {
      const chain = parts[i]!;
      const skip = i === 0 ? headerSize : 0;
      if (i === 0) chain.write(0, header, headerSize);
      const part = Math.min(frame.length - done, chain.writable - skip);
      chain.write(skip, part === frame.length ? frame : frame.subarray(done, done + part));
      queue.push(chain, skip + part);
      done += part;
    }
    parts.length = 0;
    this.flushSoon();
    return true;
  }

  /** @returns bytes of the buffers in `parts` */
  private takeBuffers(queue: Virtqueue, wanted: number): number {
    const { parts } = this;
    let room = 0;
    while (room < wanted) {
      const chain = queue.pop();
      if (chain === null) break;
      parts.push(chain);
      room += chain.writable;
      if (parts.length === 1 && chain.writable <= this.headerSize) {
        this.broken('a receive buffer without room for a header');
        break;
      }
      if (!this.has(FEATURE.mergedBuffers)) break;
    }
    return room;
  }

  /** @returns whether the frame is done with: it will never fit, or there is no room yet */
  private refuse(queue: Virtqueue): boolean {
    const { parts } = this;
    const never = this.isBroken || (parts.length > 0 && !this.has(FEATURE.mergedBuffers));
    for (let i = parts.length - 1; i >= 0; i--) queue.unpop(parts[i]!);
    parts.length = 0;
    this.starved = !never;
    return never;
  }

  /** Frames that come together make one interrupt. */
  private flushSoon(): void {
    if (this.flushing || this.sending) return;
    this.flushing = true;
    queueMicrotask(() => {
      this.flushing = false;
      this.flushReceived();
    });
  }

  private flushReceived(): void {
    for (let i = 0; i < this.queues.length - 1; i += 2) this.queues[i]!.flush();
  }

  // --- Control.

  private control(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      if (chain.writable < 1) {
        this.broken('a command without room for an answer');
        return;
      }
      const bytes = chain.readAll(LARGEST_COMMAND);
      const ok = bytes.length >= 2 && this.command(bytes[0]!, bytes[1]!, bytes.subarray(2));
      chain.writeByte(0, ok ? ANSWER.ok : ANSWER.error);
      queue.push(chain, 1);
    }
    queue.flush();
  }

  private command(kind: number, command: number, data: Uint8Array): boolean {
    switch (kind) {
      case CONTROL.rx:
        return data.length >= 1 && this.filter.set(command, data[0] !== 0);
      case CONTROL.mac:
        return this.setAddress(command, data);
      case CONTROL.vlan:
        if (data.length < 2 || (command !== VLAN_COMMAND.add && command !== VLAN_COMMAND.remove)) return false;
        return this.filter.setVlan(data[0]! | (data[1]! << 8), command === VLAN_COMMAND.add);
      case CONTROL.announce:
        this.registers.value.announcing = false;
        return command === 0;
      case CONTROL.multiQueue:
        return command === 0 && data.length >= 2 && this.setPairs(data[0]! | (data[1]! << 8));
      case CONTROL.offloads:
        return command === 0 && this.setOffloads(data);
      default:
        return false;
    }
  }

  private setAddress(command: number, data: Uint8Array): boolean {
    if (command === MAC_COMMAND.tables) return this.filter.setTables(data);
    if (command !== MAC_COMMAND.address || data.length !== 6) return false;
    this.filter.mac.set(data);
    return true;
  }

  private setPairs(pairs: number): boolean {
    if (pairs < 1 || pairs > this.pairs) return false;
    this.registers.value.pairs = pairs;
    return true;
  }

  private setOffloads(data: Uint8Array): boolean {
    if (data.length < 8 || !this.has(FEATURE.guestOffloads)) return false;
    const { value } = this.registers;
    value.guestOffloads = new DataView(data.buffer, data.byteOffset).getBigUint64(0, true);
    value.offloadsSet = true;
    this.takeFeatures();
    return true;
  }
}
