/** ARP (RFC 826): the addresses of the network's own hosts are answered for, the guest's are asked for. */
import { sameNetwork, type IpAddress } from '../address.ts';
import { ETH_SIZE, get16, put16, TYPE_ARP, TYPE_IPV4 } from '../layout.ts';
import type { Ipv4Plan } from '../../machine/network-config.ts';
import { macOfIpv4 } from './ipv4.ts';
import { BROADCAST_MAC, type Link } from './link.ts';

const ARP_SIZE = 28;
const ETHERNET = 1;
const REQUEST = 1;
const REPLY = 2;

export class Arp {
  private readonly plan: Ipv4Plan;
  private readonly link: Link;
  /** Whether a host of ours has the address. */
  private readonly owns: (address: IpAddress) => boolean;

  constructor(plan: Ipv4Plan, link: Link, owns: (address: IpAddress) => boolean) {
    this.plan = plan;
    this.link = link;
    this.owns = owns;
  }

  input(frame: Uint8Array): void {
    const at = ETH_SIZE;
    if (frame.length < at + ARP_SIZE) return;
    if (get16(frame, at) !== ETHERNET || get16(frame, at + 2) !== TYPE_IPV4 || get16(frame, at + 4) !== 0x0604) return;
    const mac = frame.slice(at + 8, at + 14);
    const sender = frame.slice(at + 14, at + 18);
    const target = frame.slice(at + 24, at + 28);
    if (sameNetwork(sender, this.plan.network, this.plan.prefix)) this.link.learn(sender, mac);
    if (get16(frame, at + 6) === REQUEST && this.owns(target)) this.send(REPLY, target, mac, sender);
  }

  ask(address: IpAddress): void {
    this.send(REQUEST, this.plan.host, BROADCAST_MAC, address);
  }

  private send(operation: number, from: IpAddress, to: Uint8Array, target: IpAddress): void {
    const { frame } = this.link;
    const at = ETH_SIZE;
    const mac = macOfIpv4(from);
    put16(frame, at, ETHERNET);
    put16(frame, at + 2, TYPE_IPV4);
    put16(frame, at + 4, 0x0604);
    put16(frame, at + 6, operation);
    frame.set(mac, at + 8);
    frame.set(from, at + 14);
    if (operation === REPLY) frame.set(to, at + 18);
    else frame.fill(0, at + 18, at + 24);
    frame.set(target, at + 24);
    this.link.transmit(to, mac, TYPE_ARP, at + ARP_SIZE, false);
  }
}
