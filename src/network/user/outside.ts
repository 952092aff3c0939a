/** Where an address of the guest's view is in the host's, and back. */
import { formatIp, hostInNetwork, isLoopback, isUnicast, parseIp, sameAddress, sameNetwork, type IpAddress } from '../address.ts';
import type { UserPlan } from '../../machine/network-config.ts';
import { LINK_LOCAL, LINK_LOCAL_BITS, ROUTER } from './ipv6.ts';
import type { Obstacle } from './packet.ts';

/** An address of the host's world, or why there is none; null when a packet deserves no answer. */
export type Route = { readonly address: string } | { readonly obstacle: Obstacle | null };

const LOOPBACK4 = '127.0.0.1';
const LOOPBACK6 = '::1';

export class Outside {
  private readonly plan: UserPlan;
  private readonly resolvers: () => readonly string[];

  constructor(plan: UserPlan, resolvers: () => readonly string[]) {
    this.plan = plan;
    this.resolvers = resolvers;
  }

  /** Where a guest's packet leads. The gateway is the host itself, and its name server the host's. */
  route(to: IpAddress): Route {
    if (this.plan.restrict) return { obstacle: 'prohibited' };
    if (this.isGateway(to)) return { address: to.length === 4 ? LOOPBACK4 : LOOPBACK6 };
    if (this.isNameServer(to)) {
      const server = this.resolvers()[0];
      return server === undefined ? { obstacle: 'host' } : { address: server };
    }
    if (!isUnicast(to) || isLoopback(to) || this.isBroadcast(to)) return { obstacle: null };
    return this.isWithin(to) ? { obstacle: 'host' } : { address: formatIp(to) };
  }

  /** How somebody outside looks to the guest: the local host like the gateway. @returns null for the other family */
  view(address: string, family: 4 | 6): IpAddress | null {
    const parsed = parseIp(address.replace(/%.*/, ''));
    const gateway = family === 4 ? this.plan.ipv4?.host : this.plan.ipv6?.host;
    if (parsed === null || parsed.length !== (family === 4 ? 4 : 16) || isLoopback(parsed) || this.isWithin(parsed)) {
      return gateway ?? null;
    }
    return parsed;
  }

  private isGateway(address: IpAddress): boolean {
    const { ipv4, ipv6 } = this.plan;
    if (address.length === 4) return ipv4 !== null && sameAddress(address, ipv4.host);
    return ipv6 !== null && (sameAddress(address, ipv6.host) || sameAddress(address, ROUTER));
  }

  private isNameServer(address: IpAddress): boolean {
    const { ipv4, ipv6 } = this.plan;
    const server = address.length === 4 ? ipv4?.dns : ipv6?.dns;
    return server !== undefined && sameAddress(address, server);
  }

  /** All of the network at once (RFC 1122, 3.2.1.3): nobody hears, and nobody is told so. */
  private isBroadcast(address: IpAddress): boolean {
    const { ipv4 } = this.plan;
    return ipv4 !== null && sameAddress(address, hostInNetwork(ipv4.network, ipv4.prefix, 0xffff_ffff));
  }

  private isWithin(address: IpAddress): boolean {
    const { ipv4, ipv6 } = this.plan;
    if (address.length === 4) return ipv4 !== null && sameNetwork(address, ipv4.network, ipv4.prefix);
    if (sameNetwork(address, LINK_LOCAL, LINK_LOCAL_BITS)) return true;
    return ipv6 !== null && sameNetwork(address, ipv6.network, ipv6.prefix);
  }
}
