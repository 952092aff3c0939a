/** Which pair of queues a connection is received by: that which it was last sent by (virtio 1.2, 5.1.6.5.6). */

const FLOWS = 256;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const TCP = 6;
const UDP = 17;

export class FlowTable {
  private readonly pairs = new Uint8Array(FLOWS);

  note(frame: Uint8Array, pair: number): void {
    this.pairs[flowOf(frame)] = pair;
  }

  pairOf(frame: Uint8Array): number {
    return this.pairs[flowOf(frame)]!;
  }
}

/** The same number for both directions of a connection. */
function flowOf(frame: Uint8Array): number {
  if (frame.length < 54) return 0;
  const type = (frame[12]! << 8) | frame[13]!;
  if (type === IPV4) return fold(frame, 26, 8, frame[23]!, 14 + (frame[14]! & 0x0f) * 4);
  return type === IPV6 ? fold(frame, 22, 32, frame[20]!, 54) : 0;
}

function fold(frame: Uint8Array, addresses: number, length: number, protocol: number, ports: number): number {
  let sum = 0;
  for (let i = 0; i < length; i += 2) sum += (frame[addresses + i]! << 8) | frame[addresses + i + 1]!;
  if ((protocol === TCP || protocol === UDP) && ports + 4 <= frame.length) {
    sum += ((frame[ports]! + frame[ports + 2]!) << 8) + frame[ports + 1]! + frame[ports + 3]!;
  }
  return (sum ^ (sum >> 8) ^ (sum >> 16)) & (FLOWS - 1);
}
