/** What a user network looks like from within: addresses, names, what is forwarded. */
import type { Endpoint } from '../../host/network.ts';
import type { IpAddress } from '../address.ts';

export interface Ipv4Plan {
  readonly network: IpAddress;
  readonly prefix: number;
  /** The gateway, which is the host. */
  readonly host: IpAddress;
  readonly dns: IpAddress;
  /** The first of 16 addresses that DHCP gives. */
  readonly dhcpStart: IpAddress;
}

export interface Ipv6Plan {
  readonly network: IpAddress;
  readonly prefix: number;
  readonly host: IpAddress;
  readonly dns: IpAddress;
}

/** What arrives at the host's socket goes to the guest. */
export interface HostForward {
  readonly protocol: 'tcp' | 'udp';
  readonly at: Endpoint;
  /** Null for the guest that has the first address of DHCP. */
  readonly guest: IpAddress | null;
  readonly port: number;
}

/** A server within the network, played by a program of the host's. */
export interface GuestForward {
  readonly address: IpAddress;
  readonly port: number;
  /** A command that is started for each connection, or a socket that each connects to. */
  readonly to: { readonly command: string } | Endpoint;
}

export interface UserPlan {
  readonly ipv4: Ipv4Plan | null;
  readonly ipv6: Ipv6Plan | null;
  /** Nothing gets out but by what is forwarded. */
  readonly restrict: boolean;
  /** What DHCP tells the guest, when given. */
  readonly hostname: string | null;
  readonly domainName: string | null;
  readonly dnsSearch: readonly string[];
  readonly bootFile: string | null;
  readonly tftpServerName: string | null;
  /** Folder that TFTP serves. */
  readonly tftp: string | null;
  readonly hostForwards: readonly HostForward[];
  readonly guestForwards: readonly GuestForward[];
}
