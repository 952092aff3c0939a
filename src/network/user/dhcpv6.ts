/** DHCPv6 without addresses (RFC 8415, 6.1): the name server, the search list, and what to boot. */
import { formatIp, parseIpv6, sameAddress } from '../address.ts';
import { get16, put16 } from '../layout.ts';
import type { UserPlan } from '../../machine/network-config.ts';
import { searchList } from './dhcp.ts';
import type { Ipv6 } from './ipv6.ts';
import type { Packet } from './packet.ts';
import type { Udp } from './udp.ts';

const SERVER_PORT = 547;
const CLIENT_PORT = 546;
const ALL_SERVERS = parseIpv6('ff02::1:2')!;

const INFORMATION_REQUEST = 11;
const REPLY = 7;
const HEADER = 4;
const MAX_REQUEST = 1024;

const OPTION_CLIENT_ID = 1;
const OPTION_SERVER_ID = 2;
const OPTION_DNS = 23;
const OPTION_SEARCH = 24;
const OPTION_BOOT_FILE = 59;

export class Dhcpv6Server {
  private readonly plan: UserPlan;
  private readonly ip: Ipv6;
  private readonly udp: Udp;

  constructor(plan: UserPlan, ip: Ipv6, udp: Udp) {
    this.plan = plan;
    this.ip = ip;
    this.udp = udp;
    udp.serve((packet, from, port, data) => {
      if (packet.ip !== ip || port !== SERVER_PORT || !sameAddress(packet.destination, ALL_SERVERS)) return false;
      if (from === CLIENT_PORT) this.input(packet, data);
      return true;
    });
  }

  private input(packet: Packet, data: Uint8Array): void {
    if (data.length < HEADER || data.length > MAX_REQUEST || data[0] !== INFORMATION_REQUEST) return;
    const parts: Uint8Array[] = [];
    for (let at = HEADER; at + 4 <= data.length; ) {
      const end = at + 4 + get16(data, at + 2);
      if (end > data.length) return;
      // A client is answered with the name that it gives itself.
      if (get16(data, at) === OPTION_CLIENT_ID) parts.push(data.slice(at, end));
      at = end;
    }
    parts.push(option(OPTION_SERVER_ID, Uint8Array.of(0, 3, 0, 1, ...this.ip.mac)));
    if (!this.plan.restrict) parts.push(option(OPTION_DNS, this.ip.plan.dns));
    if (this.plan.dnsSearch.length > 0) parts.push(option(OPTION_SEARCH, searchList(this.plan.dnsSearch)));
    if (this.plan.bootFile !== null) {
      const url = `tftp://[${formatIp(this.ip.self)}]/${this.plan.bootFile}`;
      parts.push(option(OPTION_BOOT_FILE, new TextEncoder().encode(url)));
    }
    const reply = new Uint8Array([REPLY, data[1]!, data[2]!, data[3]!, ...parts.flatMap((part) => [...part])]);
    this.udp.send(this.ip, this.ip.self, SERVER_PORT, packet.source, CLIENT_PORT, reply);
  }
}

function option(code: number, value: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + value.length);
  put16(bytes, 0, code);
  put16(bytes, 2, value.length);
  bytes.set(value, 4);
  return bytes;
}
