/** Packets of the socket device: virtio 1.2, section 5.10.6. */

/**
 *     0 source CID 64   8 destination CID 64   16 source port   20 destination port   24 length   28 type 16   30 operation 16
 *     32 flags   36 buffer size   40 bytes consumed
 */
export const PACKET_HEADER = 44;
export const HOST_CID = 2;
export const STREAM = 1;
export const OP = { request: 1, response: 2, reset: 3, shutdown: 4, data: 5, creditUpdate: 6, creditRequest: 7 } as const;
/** Flags of a shutdown. */
export const NO_MORE = { receive: 1, send: 2 } as const;

export type Packet = {
  sourceCid: number;
  targetCid: number;
  sourcePort: number;
  targetPort: number;
  length: number;
  type: number;
  op: number;
  flags: number;
  bufferSize: number;
  consumed: number;
};

export function parsePacket(bytes: Uint8Array): Packet {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    sourceCid: Number(view.getBigUint64(0, true)),
    targetCid: Number(view.getBigUint64(8, true)),
    sourcePort: view.getUint32(16, true),
    targetPort: view.getUint32(20, true),
    length: view.getUint32(24, true),
    type: view.getUint16(28, true),
    op: view.getUint16(30, true),
    flags: view.getUint32(32, true),
    bufferSize: view.getUint32(36, true),
    consumed: view.getUint32(40, true),
  };
}

export function packetBytes(packet: Packet): Uint8Array {
  const bytes = new Uint8Array(PACKET_HEADER);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(packet.sourceCid), true);
  view.setBigUint64(8, BigInt(packet.targetCid), true);
  view.setUint32(16, packet.sourcePort, true);
  view.setUint32(20, packet.targetPort, true);
  view.setUint32(24, packet.length, true);
  view.setUint16(28, packet.type, true);
  view.setUint16(30, packet.op, true);
  view.setUint32(32, packet.flags, true);
  view.setUint32(36, packet.bufferSize, true);
  view.setUint32(40, packet.consumed, true);
  return bytes;
}
