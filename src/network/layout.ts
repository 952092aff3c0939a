/**
 * Where things are in packets; all numbers are big-endian.
 *
 *     Ethernet II      0 destination   6 source   12 type   14 payload
 *     ARP (RFC 826)    0 hardware type   2 protocol   4 lengths 6, 4   6 operation
 *                      8 sender's MAC   14 sender's IP   18 target's MAC   24 target's IP
 *     IPv4 (RFC 791)   0 version, header words   1 TOS   2 length   4 id   6 flags, fragment offset / 8
 *                      8 TTL   9 protocol   10 checksum   12 source   16 destination   20 options
 *     IPv6 (RFC 8200)  0 version, class, flow   4 payload length   6 next header   7 hop limit
 *                      8 source   24 destination   40 payload
 *     TCP (RFC 9293)   0 source port   2 destination port   4 sequence   8 acknowledgement
 *                      12 header words << 4   13 flags   14 window   16 checksum   18 urgent   20 options
 *     UDP (RFC 768)    0 source port   2 destination port   4 length   6 checksum   8 payload
 *     ICMP, ICMPv6     0 type   1 code   2 checksum   4 depends on the type
 */

export const ETH_TYPE = 12;
export const ETH_SIZE = 14;
export const TYPE_IPV4 = 0x0800;
export const TYPE_ARP = 0x0806;
export const TYPE_IPV6 = 0x86dd;
/** The shortest frame that Ethernet carries, without FCS. */
export const ETH_LEAST = 60;
/** The longest packet within a frame that nobody needs to cut. */
export const MTU = 1500;
/** The longest frame at all: an IP packet of 64 KiB. */
export const FRAME_MAX = ETH_SIZE + 65535 + 40;

export const IPV4_SIZE = 20;
export const IPV6_SIZE = 40;
export const TCP_SIZE = 20;
export const UDP_SIZE = 8;

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_FRAGMENT = 44;
export const PROTOCOL_ICMPV6 = 58;

export const TCP_FIN = 1;
export const TCP_SYN = 2;
export const TCP_RST = 4;
export const TCP_PSH = 8;
export const TCP_ACK = 16;

export const get16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;

/** Unsigned. */
export const get32 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}
