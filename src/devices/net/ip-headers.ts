/** Finds a frame's headers, for cards whose drivers do not say where they are. */
import { contextPowerOn, type OffloadContext } from './offload.ts';

const TYPE_AT = 12;
const IP_AT = 14;
const IPV4 = 0x0800;
const SMALLEST_IP = 20;
const TCP = 6;
const UDP = 17;
const FIELD = { [TCP]: 16, [UDP]: 6 } as const;
const SMALLEST = { [TCP]: 20, [UDP]: 8 } as const;

const word = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;

/** @returns where the parts of a frame with IPv4 lie, of TCP or UDP, too, where it has them and is no later fragment; or null */
export function headersOf(frame: Uint8Array): OffloadContext | null {
  if (frame.length < IP_AT + SMALLEST_IP || word(frame, TYPE_AT) !== IPV4 || frame[IP_AT]! >> 4 !== 4) return null;
  const length = 4 * (frame[IP_AT]! & 15);
  const start = IP_AT + length;
  if (length < SMALLEST_IP || start > frame.length) return null;
  const context = { ...contextPowerOn(), ipStart: IP_AT, ipField: IP_AT + 10, ipEnd: start - 1, ipv4: true };
  const protocol = frame[IP_AT + 9]!;
  const later = (word(frame, IP_AT + 6) & 0x1fff) !== 0;
  if ((protocol !== TCP && protocol !== UDP) || later || start + SMALLEST[protocol] > frame.length) return context;
  const tcp = protocol === TCP;
  const headerLength = start + (tcp ? 4 * (frame[start + 12]! >> 4) : SMALLEST[UDP]);
  return { ...context, start, field: start + FIELD[protocol], tcp, headerLength };
}

/**
 * Puts the sum of the pseudo-header (RFC 793, 3.1) where the transport's checksum goes.
 * @param length bytes of the transport's header and data, 0 to leave them out
 */
export function putPseudoSum(frame: Uint8Array, { field, tcp }: OffloadContext, length: number): void {
  let sum = (tcp ? TCP : UDP) + length;
  for (let at = IP_AT + 12; at < IP_AT + SMALLEST_IP; at += 2) sum += word(frame, at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  frame[field] = sum >> 8;
  frame[field + 1] = sum;
}
