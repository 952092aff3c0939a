/** Puts fragments of IP packets together again, within bounds that no sender can move. */

/** Packets that may be incomplete at a time, and fragments of one. */
const MAX_PACKETS = 16;
const MAX_FRAGMENTS = 64;
const MAX_LENGTH = 65535;
/** Nanoseconds that the rest may take to come (RFC 8200, 4.5: 60 s; RFC 1122, 3.3.2). */
const PATIENCE = 60e9;

type Part = { readonly offset: number; readonly data: Uint8Array };
type Incomplete = { readonly since: number; readonly parts: Part[]; bytes: number; total: number };

export class Fragments {
  private readonly packets = new Map<string, Incomplete>();

  /**
   * @param key what fragments of one packet have in common  @param offset bytes  @param more not the last one
   * @param now nanoseconds  @returns the whole payload once it is complete
   */
  add(key: string, offset: number, more: boolean, data: Uint8Array, now: number): Uint8Array | null {
    this.expire(now);
    const packet = this.packets.get(key) ?? this.begin(key, now);
    if (!fits(packet, offset, more, data)) {
      // Overlaps are never innocent: the packet is dropped (RFC 5722, 3).
      this.packets.delete(key);
      return null;
    }
    packet.parts.push({ offset, data: data.slice() });
    packet.bytes += data.length;
    if (!more) packet.total = offset + data.length;
    if (packet.bytes !== packet.total) return null;
    this.packets.delete(key);
    const whole = new Uint8Array(packet.total);
    for (const part of packet.parts) whole.set(part.data, part.offset);
    return whole;
  }

  private begin(key: string, now: number): Incomplete {
    if (this.packets.size >= MAX_PACKETS) this.packets.delete(this.packets.keys().next().value!);
    const packet = { since: now, parts: [], bytes: 0, total: -1 };
    this.packets.set(key, packet);
    return packet;
  }

  private expire(now: number): void {
    for (const [key, { since }] of this.packets) {
      if (now - since < PATIENCE) return;
      this.packets.delete(key);
    }
  }
}

function fits({ parts, total }: Incomplete, offset: number, more: boolean, data: Uint8Array): boolean {
  const end = offset + data.length;
  if (data.length === 0 || end > MAX_LENGTH || parts.length >= MAX_FRAGMENTS) return false;
  if (more ? data.length % 8 !== 0 || (total >= 0 && end >= total) : total >= 0) return false;
  return parts.every(
    (part) => (end <= part.offset || offset >= part.offset + part.data.length) && (more || part.offset < offset),
  );
}
