/** Networks, the cards on them, and what watches them. */
import type { Endpoint } from '../host/network.ts';

/** 4 or 16 bytes in network order. */
export type IpAddress = Uint8Array;

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

/** What is behind a card. */
export type NetdevConfig = { readonly id: string } & (
  | { readonly type: 'user'; readonly plan: UserPlan }
  | {
      readonly type: 'tap';
      /** Name of the interface, which may not be there yet; null for the host's choice. */
      readonly ifname: string | null;
      /** The number of an open one instead. */
      readonly fd: number | null;
      /** Leave checksums and cutting to whoever comes last. */
      readonly headers: boolean;
      /** Programs that are run with the interface's name, to set it up and to take it down; null for none. */
      readonly script: string | null;
      readonly downScript: string | null;
    }
  /** Frames with their length before them on a stream: `-netdev stream`, and `socket` with listen or connect. */
  | {
      readonly type: 'stream';
      readonly server: boolean;
      readonly at: Endpoint;
      /** Seconds after which a lost connection is sought again; 0 for never. */
      readonly reconnect: number;
    }
  /** A frame each datagram: `-netdev dgram`, and `socket` with mcast or udp. */
  | {
      readonly type: 'dgram';
      readonly local: Endpoint | null;
      readonly remote: Endpoint;
      /** `remote` is a group that everybody hears. */
      readonly multicast: boolean;
    }
  /** One socket of a hub; `netdev` is plugged into it, else a card. */
  | { readonly type: 'hubport'; readonly hub: number; readonly netdev: string | null }
);

/** A network card. */
export interface NicConfig {
  /** QEMU's name of the device, e.g. "e1000" or "virtio-net-pci". */
  readonly model: string;
  readonly id: string | null;
  /** Null for a card whose cable leads nowhere. */
  readonly netdev: string | null;
  /** Six bytes. */
  readonly mac: Uint8Array;
  /** Further properties of the device as they were given, e.g. `addr`, `bus`, `mq`, `bootindex`. */
  readonly properties: Readonly<Record<string, string>>;
}

/** `-object filter-dump`: a copy of all frames in a file. */
export interface DumpConfig {
  readonly id: string;
  readonly netdev: string;
  readonly file: string;
  /** Bytes of each frame that are kept. */
  readonly maxLength: number;
}

export interface NetworkConfig {
  readonly netdevs: readonly NetdevConfig[];
  readonly nics: readonly NicConfig[];
  readonly dumps: readonly DumpConfig[];
}

export const NO_NETWORK: NetworkConfig = { netdevs: [], nics: [], dumps: [] };

/** @throws Error, one line, for what contradicts itself */
export function checkNetwork({ netdevs, nics, dumps }: NetworkConfig): void {
  const ids = new Set<string>();
  for (const { id } of netdevs) {
    if (ids.has(id)) throw new Error(`there are two networks "${id}"`);
    ids.add(id);
  }
  const taken = new Set<string>();
  const take = (id: string, who: string): void => {
    if (!ids.has(id)) throw new Error(`${who}: there is no network "${id}"`);
    if (taken.has(id)) throw new Error(`${who}: network "${id}" is in use`);
    taken.add(id);
  };
  for (const one of netdevs) if (one.type === 'hubport' && one.netdev !== null) take(one.netdev, `hub port "${one.id}"`);
  for (const { netdev, model, mac } of nics) {
    if (mac.length !== 6 || (mac[0]! & 1) !== 0) throw new Error(`${model}: not the MAC address of one card`);
    if (netdev !== null) take(netdev, model);
  }
  for (const { id, netdev } of dumps) if (!ids.has(netdev)) throw new Error(`filter "${id}": there is no network "${netdev}"`);
}
