/** Work that one side of a network has left to the other: described in virtio's header, or done here. */
import { GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP_DATAGRAMS, GSO_UDP_FRAGMENTS, type PacketOffload } from '../machine/interfaces.ts';
import { addBytes, finish, fold, pseudoSum } from './checksum.ts';
import {
  ETH_SIZE,
  ETH_TYPE,
  get16,
  get32,
  IPV4_SIZE,
  IPV6_SIZE,
  MTU,
  PROTOCOL_FRAGMENT,
  PROTOCOL_UDP,
  put16,
  put32,
  TCP_FIN,
  TCP_PSH,
  TCP_SIZE,
  TYPE_IPV4,
  UDP_SIZE,
} from './layout.ts';

/*
 * struct virtio_net_hdr (virtio 1.2, 5.1.6), little-endian:
 * 0 flags   1 GSO type   2 header length   4 segment size   6 checksum start   8 checksum offset
 */
export const VIRTIO_HEADER = 10;
const NEEDS_CHECKSUM = 1;

/** @param offload null for a complete frame */
export function writeVirtioHeader(header: Uint8Array, offload: PacketOffload | null): void {
  header.fill(0, 0, VIRTIO_HEADER);
  if (offload === null) return;
  const view = new DataView(header.buffer, header.byteOffset);
  header[1] = offload.gso;
  view.setUint16(2, offload.headerLength, true);
  view.setUint16(4, offload.segmentSize, true);
  if (offload.checksumStart < 0) return;
  header[0] = NEEDS_CHECKSUM;
  view.setUint16(6, offload.checksumStart, true);
  view.setUint16(8, offload.checksumOffset, true);
}

/** @returns null for a complete frame */
export function readVirtioHeader(header: Uint8Array): PacketOffload | null {
  const needsChecksum = (header[0]! & NEEDS_CHECKSUM) !== 0;
  // The top bit is a word about congestion, which changes nothing here.
  const gso = header[1]! & 0x7f;
  if (!needsChecksum && gso === GSO_NONE) return null;
  const view = new DataView(header.buffer, header.byteOffset);
  return {
    checksumStart: needsChecksum ? view.getUint16(6, true) : -1,
    checksumOffset: view.getUint16(8, true),
    gso,
    headerLength: view.getUint16(2, true),
    segmentSize: view.getUint16(4, true),
  };
}

/**
 * Does what a frame's sender has left undone.
 * @param emit called for each frame, which is valid during the call; nothing comes of a frame that contradicts itself
 */
export function complete(frame: Uint8Array, offload: PacketOffload | null, emit: (frame: Uint8Array) => void): void {
  if (offload === null) return emit(frame);
  switch (offload.gso) {
    case GSO_NONE: {
      const field = offload.checksumStart + offload.checksumOffset;
      if (offload.checksumStart < 0) return emit(frame);
      if (field + 2 > frame.length) return;
      const whole = frame.slice();
      // The field holds the pseudo-header's sum already.
      put16(whole, field, finish(addBytes(0, frame, offload.checksumStart, frame.length)) || 0xffff);
      return emit(whole);
    }
    case GSO_TCP4:
    case GSO_TCP6:
      return cutTcp(frame, offload.segmentSize, emit);
    case GSO_UDP_DATAGRAMS:
      return cutDatagrams(frame, offload.segmentSize, emit);
    case GSO_UDP_FRAGMENTS:
      return cutFragments(frame, emit);
  }
}

type Headers = { readonly v4: boolean; readonly transport: number };

/** @returns null for what has no IP header of the plain kind */
function headersOf(frame: Uint8Array): Headers | null {
  const v4 = get16(frame, ETH_TYPE) === TYPE_IPV4;
  const transport = ETH_SIZE + (v4 ? 4 * (frame[ETH_SIZE]! & 15) : IPV6_SIZE);
  return transport + UDP_SIZE > frame.length || transport < ETH_SIZE + IPV4_SIZE ? null : { v4, transport };
}

/** Fills in what depends on a piece's length. @param protocol the transport's  @param field of its checksum in the piece */
function seal(piece: Uint8Array, { v4, transport }: Headers, protocol: number, field: number): void {
  if (v4) {
    put16(piece, ETH_SIZE + 2, piece.length - ETH_SIZE);
    sealIpv4(piece, transport);
  } else put16(piece, ETH_SIZE + 4, piece.length - transport);
  const pseudo = pseudoSum(piece, ETH_SIZE + (v4 ? 12 : 8), v4 ? 4 : 16, protocol, piece.length - transport);
  put16(piece, transport + field, 0);
  put16(piece, transport + field, finish(addBytes(pseudo, piece, transport, piece.length)) || 0xffff);
}

function sealIpv4(piece: Uint8Array, transport: number): void {
  put16(piece, ETH_SIZE + 10, 0);
  put16(piece, ETH_SIZE + 10, finish(addBytes(0, piece, ETH_SIZE, transport)));
}

/** One piece after the other, each with a copy of the headers. */
function cut(
  frame: Uint8Array,
  payload: number,
  size: number,
  finishPiece: (piece: Uint8Array, offset: number, last: boolean, index: number) => void,
  emit: (frame: Uint8Array) => void,
): void {
  if (size <= 0 || payload > frame.length) return;
  let index = 0;
  for (let at = payload; at < frame.length || index === 0; at += size) {
    const end = Math.min(at + size, frame.length);
    const piece = new Uint8Array(payload + end - at);
    piece.set(frame.subarray(0, payload));
    piece.set(frame.subarray(at, end), payload);
    finishPiece(piece, at - payload, end === frame.length, index++);
    emit(piece);
  }
}

function cutTcp(frame: Uint8Array, size: number, emit: (frame: Uint8Array) => void): void {
  const headers = headersOf(frame);
  if (headers === null || headers.transport + TCP_SIZE > frame.length) return;
  const { v4, transport } = headers;
  const payload = transport + (frame[transport + 12]! >> 4) * 4;
  const sequence = get32(frame, transport + 4);
  cut(
    frame,
    payload,
    size,
    (piece, offset, last, index) => {
      put32(piece, transport + 4, sequence + offset);
      if (!last) piece[transport + 13]! &= ~(TCP_FIN | TCP_PSH);
      if (v4) put16(piece, ETH_SIZE + 4, get16(frame, ETH_SIZE + 4) + index);
      seal(piece, headers, 6, 16);
    },
    emit,
  );
}

function cutDatagrams(frame: Uint8Array, size: number, emit: (frame: Uint8Array) => void): void {
  const headers = headersOf(frame);
  if (headers === null) return;
  const { v4, transport } = headers;
  cut(
    frame,
    transport + UDP_SIZE,
    size,
    (piece, _offset, _last, index) => {
      put16(piece, transport + 4, piece.length - transport);
      if (v4) put16(piece, ETH_SIZE + 4, get16(frame, ETH_SIZE + 4) + index);
      seal(piece, headers, PROTOCOL_UDP, 6);
    },
    emit,
  );
}

/** A datagram that is too long for a frame: its checksum is over the whole, so that comes first. */
function cutFragments(frame: Uint8Array, emit: (frame: Uint8Array) => void): void {
  const headers = headersOf(frame);
  if (headers === null) return;
  const { v4, transport } = headers;
  const whole = frame.slice();
  const pseudo = pseudoSum(whole, ETH_SIZE + (v4 ? 12 : 8), v4 ? 4 : 16, PROTOCOL_UDP, whole.length - transport);
  put16(whole, transport + 6, 0);
  put16(whole, transport + 6, finish(addBytes(pseudo, whole, transport, whole.length)) || 0xffff);
  if (v4) {
    const size = (MTU + ETH_SIZE - transport) & ~7;
    return cut(
      whole,
      transport,
      size,
      (piece, offset, last) => {
        put16(piece, ETH_SIZE + 2, piece.length - ETH_SIZE);
        put16(piece, ETH_SIZE + 6, (offset >> 3) | (last ? 0 : 0x2000));
        sealIpv4(piece, transport);
      },
      emit,
    );
  }
  // Room for the fragment header is made behind the IP header.
  const wide = new Uint8Array(whole.length + 8);
  wide.set(whole.subarray(0, transport));
  wide[ETH_SIZE + 6] = PROTOCOL_FRAGMENT;
  wide[transport] = PROTOCOL_UDP;
  put32(wide, transport + 4, fold(pseudo));
  wide.set(whole.subarray(transport), transport + 8);
  const size = (MTU - IPV6_SIZE - 8) & ~7;
  cut(
    wide,
    transport + 8,
    size,
    (piece, offset, last) => {
      put16(piece, ETH_SIZE + 4, piece.length - transport);
      put16(piece, transport + 2, offset | (last ? 0 : 1));
    },
    emit,
  );
}
