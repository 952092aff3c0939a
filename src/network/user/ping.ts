/** Echo requests to the world outside, by sockets that the host lets anybody have; without them the guest is told so. */
import type { HostDatagrams, HostNetwork } from '../../host/network.ts';
import type { Timer, VirtualClock } from '../../machine/interfaces.ts';
import { formatIp, isLoopback, isUnicast, type IpAddress } from '../address.ts';
import { addBytes, finish } from '../checksum.ts';
import { put16 } from '../layout.ts';
import { echoId } from './icmp.ts';
import type { IpLayer, Packet } from './packet.ts';

const MAX_SOCKETS = 32;
/** Nanoseconds after the last request that answers are waited for. */
const PATIENCE = 30e9;

type Asker = {
  readonly socket: HostDatagrams;
  readonly guest: IpAddress;
  readonly id: number;
  /** Whom the guest has asked last: the host does not tell who answers. */
  target: IpAddress;
  last: number;
};

export class PingRelay {
  private readonly ip: () => IpLayer;
  private readonly network: HostNetwork;
  private readonly clock: VirtualClock;
  /** @param message an echo reply with the guest's identifier and a right checksum for IPv4 */
  private readonly reply: (from: IpAddress, to: IpAddress, message: Uint8Array) => void;
  private readonly askers = new Map<string, Asker>();
  private readonly timer: Timer;

  constructor(
    ip: () => IpLayer,
    network: HostNetwork,
    clock: VirtualClock,
    reply: (from: IpAddress, to: IpAddress, message: Uint8Array) => void,
  ) {
    this.ip = ip;
    this.network = network;
    this.clock = clock;
    this.reply = reply;
    this.timer = clock.timer((now) => this.expire(now));
  }

  send(packet: Packet): void {
    const { bytes, start, end } = packet;
    const target = packet.destination;
    if (isLoopback(target) || !isUnicast(target)) return;
    if (packet.hops <= 1) return packet.ip.refuse(packet, 'time');
    const asker = this.asker(packet.source, echoId(bytes, start), target);
    if (asker === null) return packet.ip.refuse(packet, 'prohibited');
    asker.target = target;
    asker.last = this.clock.now();
    asker.socket.send(bytes.subarray(start, end), { address: formatIp(target), port: 0 });
  }

  close(): void {
    for (const { socket } of this.askers.values()) socket.close();
    this.askers.clear();
    this.timer.cancel();
  }

  private asker(guest: IpAddress, id: number, target: IpAddress): Asker | null {
    const key = `${formatIp(guest)},${id}`;
    const known = this.askers.get(key);
    if (known !== undefined) return known;
    if (this.askers.size >= MAX_SOCKETS) this.drop(this.askers.keys().next().value!);
    const made: { asker: Asker | null } = { asker: null };
    const socket = this.network.ping(this.ip().family, (message) => {
      if (made.asker !== null) this.answered(made.asker, message);
    });
    if (socket === null) return null;
    made.asker = { socket, guest, id, target, last: this.clock.now() };
    this.askers.set(key, made.asker);
    if (this.timer.deadline === Infinity) this.timer.arm(this.clock.now() + PATIENCE);
    return made.asker;
  }

  private answered({ guest, id, target }: Asker, message: Uint8Array): void {
    if (message.length < 8) return;
    const copy = message.slice();
    put16(copy, 4, id);
    put16(copy, 2, 0);
    if (target.length === 4) put16(copy, 2, finish(addBytes(0, copy, 0, copy.length)));
    this.reply(target, guest, copy);
  }

  private expire(now: number): void {
    for (const [key, { last }] of this.askers) if (now - last >= PATIENCE) this.drop(key);
    if (this.askers.size > 0) this.timer.arm(now + PATIENCE);
  }

  private drop(key: string): void {
    this.askers.get(key)?.socket.close();
    this.askers.delete(key);
  }
}
