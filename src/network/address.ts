/** Addresses of IP, as bytes in network order and as text. */
import type { IpAddress } from '../machine/network-config.ts';

export type { IpAddress };

/** @returns null when the text is not four numbers from 0 to 255 */
export function parseIpv4(text: string): IpAddress | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return null;
  const parts = match.slice(1).map(Number);
  return parts.every((part) => part <= 255) ? Uint8Array.from(parts) : null;
}

/** @returns null when the text is not an IPv6 address (RFC 4291, 2.2) */
export function parseIpv6(text: string): IpAddress | null {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  let plain = text;
  if (dotted !== null) {
    const last = parseIpv4(dotted[2]!);
    if (last === null) return null;
    const word = (at: number): string => ((last[at]! << 8) | last[at + 1]!).toString(16);
    plain = `${dotted[1]}${word(0)}:${word(2)}`;
  }
  const halves = plain.split('::');
  if (halves.length > 2) return null;
  const words = halves.map((half) => (half === '' ? [] : half.split(':')));
  const given = words.reduce((sum, half) => sum + half.length, 0);
  if (halves.length === 1 ? given !== 8 : given > 7) return null;
  const all = halves.length === 1 ? words[0]! : [...words[0]!, ...Array<string>(8 - given).fill('0'), ...words[1]!];
  if (!all.every((word) => /^[0-9a-f]{1,4}$/i.test(word))) return null;
  return Uint8Array.from(
    all.flatMap((word) => {
      const value = Number.parseInt(word, 16);
      return [value >> 8, value & 0xff];
    }),
  );
}

export const parseIp = (text: string): IpAddress | null => parseIpv4(text) ?? parseIpv6(text);

export function formatIp(address: IpAddress): string {
  if (address.length === 4) return address.join('.');
  const words = Array.from({ length: 8 }, (_, i) => ((address[2 * i]! << 8) | address[2 * i + 1]!).toString(16));
  const text = words.join(':');
  // The longest run of zeros is left out (RFC 5952, 4.2).
  const runs = [...text.matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)];
  const longest = runs.reduce((best, run) => (run[0].length > best.length ? run[0] : best), '');
  if (longest === '') return text;
  return text
    .replace(longest, ':')
    .replace(/^:(?!:)|(?<!:):$/g, '::')
    .replace(/^$/, '::');
}

export function sameAddress(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Whether the first `bits` bits are the same. */
export function sameNetwork(a: IpAddress, b: IpAddress, bits: number): boolean {
  if (a.length !== b.length) return false;
  const whole = bits >> 3;
  for (let i = 0; i < whole; i++) if (a[i] !== b[i]) return false;
  const rest = bits & 7;
  return rest === 0 || (a[whole]! ^ b[whole]!) >> (8 - rest) === 0;
}

/** The network's address with the bits after its prefix as in `host`. @param host up to 32 bits */
export function hostInNetwork(network: IpAddress, bits: number, host: number): IpAddress {
  const address = network.slice();
  const total = 8 * address.length;
  for (let bit = bits; bit < total; bit++) {
    const mask = 0x80 >> (bit & 7);
    const place = total - 1 - bit;
    const set = place < 32 && ((host >>> place) & 1) === 1;
    address[bit >> 3] = set ? address[bit >> 3]! | mask : address[bit >> 3]! & ~mask;
  }
  return address;
}

export const isLoopback = (address: IpAddress): boolean =>
  address.length === 4 ? address[0] === 127 : address.every((byte, i) => byte === (i === 15 ? 1 : 0));

/** Addresses that no packet is sent to one host by: 0.0.0.0/8, multicast, broadcast; `::`, multicast, IPv4 in IPv6. */
export function isUnicast(address: IpAddress): boolean {
  if (address.length === 4) return address[0] !== 0 && address[0]! < 224;
  return address[0] !== 0xff && address.subarray(0, 10).some((byte) => byte !== 0);
}

/** @returns the six bytes, or null when the text is not `xx:xx:xx:xx:xx:xx` */
export function parseMac(text: string): Uint8Array | null {
  if (!/^[0-9a-f]{1,2}([:-][0-9a-f]{1,2}){5}$/i.test(text)) return null;
  return Uint8Array.from(text.split(/[:-]/).map((byte) => Number.parseInt(byte, 16)));
}
