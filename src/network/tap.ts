/** A TAP interface of the host's as a network: frames come and go as they are, with segments uncut where both sides can. */
import type { HostNetwork, TapDevice, TapOptions } from '../host/network.ts';
import { NO_OFFLOADS, type Offloads, type PacketOffload } from '../machine/interfaces.ts';
import { Backend } from './backend.ts';
import { readVirtioHeader, VIRTIO_HEADER, writeVirtioHeader } from './offload.ts';

/** Bits of TUNSETOFFLOAD (linux/if_tun.h). */
const TUN_CHECKSUM = 1;
const TUN_TSO4 = 2;
const TUN_TSO6 = 4;

const SEGMENTS: Offloads = { checksum: true, tso4: true, tso6: true, ufo: false, uso: false };

export class TapBackend extends Backend {
  readonly offloads: Offloads;
  readonly name: string;
  private readonly device: TapDevice;
  private readonly header = new Uint8Array(VIRTIO_HEADER);

  /** @throws Error, one line, when the host does not give the interface */
  constructor(host: HostNetwork, options: TapOptions) {
    super();
    const device = host.tap(options);
    this.device = device;
    this.name = device.name;
    this.offloads = device.headers ? SEGMENTS : NO_OFFLOADS;
    if (device.headers) device.setOffloads(0);
    device.onFrames = (frames) => this.receive(frames);
  }

  send(frame: Uint8Array, offload: PacketOffload | null): boolean {
    if (this.device.headers) writeVirtioHeader(this.header, offload);
    // A link that is full loses frames.
    this.device.write(this.device.headers ? this.header : null, frame);
    return true;
  }

  override close(): void {
    super.close();
    this.device.close();
  }

  protected override onRoom(): void {
    this.device.resume();
  }

  protected override acceptsChanged(): void {
    if (!this.device.headers) return;
    const { checksum, tso4, tso6 } = this.accepts;
    const segments = (tso4 ? TUN_TSO4 : 0) | (tso6 ? TUN_TSO6 : 0);
    this.device.setOffloads(checksum ? TUN_CHECKSUM | segments : 0);
  }

  private receive(frames: readonly Uint8Array[]): void {
    for (const frame of frames) {
      if (this.device.headers) this.deliver(frame.subarray(VIRTIO_HEADER), readVirtioHeader(frame));
      else this.deliver(frame);
    }
    if (this.full) this.device.pause();
  }
}
