/**
 * LUKS version 1 (the on-disk format's specification 1.2.3): by itself as the driver `luks`, and within qcow2.
 *
 *     0 magic   6 version   8 cipher   40 mode   72 hash   104 payload offset (sectors)   108 key bytes
 *   112 digest of the master key (20)   132 its salt (32)   164 its iterations   168 UUID (40)
 *   208 eight key slots of 48: active, iterations, salt (32), offset of the key material (sectors), stripes
 */
import { digest, pbkdf2, sectorCipher } from '#host/crypto';
import type { SectorCipher } from '../host/host.ts';

const SECTOR = 512;
const HEADER_BYTES = 592;
const SLOTS = 8;
const ACTIVE = 0x00ac71f3;
const INACTIVE = 0x0000dead;
const DIGEST_BYTES = 20;
const SALT_BYTES = 32;
const STRIPES = 4000;
/** Key material begins on multiples of this, sectors. */
const ALIGN = 8;
/** Bounds of what headers may claim. */
const MAX_STRIPES = 16_000;
const MAX_ITERATIONS = 20_000_000;
const LEAST_ITERATIONS = 1000;

type Slot = { active: boolean; iterations: number; salt: Uint8Array; keyOffset: number; stripes: number };

export type LuksHeader = {
  cipher: string;
  mode: string;
  iv: string;
  hash: string;
  payloadOffset: number;
  keyBytes: number;
  digest: Uint8Array;
  digestSalt: Uint8Array;
  digestIterations: number;
  uuid: string;
  slots: Slot[];
};

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function text(bytes: Uint8Array, at: number, length: number): string {
  const part = bytes.subarray(at, at + length);
  const end = part.indexOf(0);
  return new TextDecoder('latin1').decode(part.subarray(0, end < 0 ? length : end));
}

/** @throws Error where the header is not one, or asks for what there is not */
export function parseLuks(bytes: Uint8Array): LuksHeader {
  if (bytes.length < HEADER_BYTES) throw new Error('Unable to read LUKS header');
  const fields = view(bytes);
  if (text(bytes, 0, 4) !== 'LUKS' || fields.getUint16(4) !== 0xbabe) throw new Error('Volume is not in LUKS format');
  if (fields.getUint16(6) !== 1) throw new Error(`LUKS version ${fields.getUint16(6)} is not supported`);
  const [mode = '', ...ivParts] = text(bytes, 40, 32).split('-');
  const header: LuksHeader = {
    cipher: text(bytes, 8, 32),
    mode,
    iv: ivParts.join('-'),
    hash: text(bytes, 72, 32),
    payloadOffset: fields.getUint32(104) * SECTOR,
    keyBytes: fields.getUint32(108),
    digest: bytes.slice(112, 112 + DIGEST_BYTES),
    digestSalt: bytes.slice(132, 132 + SALT_BYTES),
    digestIterations: fields.getUint32(164),
    uuid: text(bytes, 168, 40),
    slots: Array.from({ length: SLOTS }, (_, i) => parseSlot(bytes, 208 + 48 * i)),
  };
  checkHeader(header);
  return header;
}

function parseSlot(bytes: Uint8Array, at: number): Slot {
  const fields = view(bytes);
  return {
    active: fields.getUint32(at) === ACTIVE,
    iterations: fields.getUint32(at + 4),
    salt: bytes.slice(at + 8, at + 8 + SALT_BYTES),
    keyOffset: fields.getUint32(at + 40) * SECTOR,
    stripes: fields.getUint32(at + 44),
  };
}

function checkHeader({ cipher, mode, iv, hash, keyBytes, slots, digestIterations }: LuksHeader): void {
  const lengths = mode === 'xts' ? [32, 48, 64] : [16, 24, 32];
  if (cipher !== 'aes') throw new Error(`LUKS cipher '${cipher}' is not supported (supported: aes)`);
  if (!['xts', 'cbc', 'ecb'].includes(mode)) throw new Error(`LUKS cipher mode '${mode}' is not supported`);
  if (mode !== 'ecb' && !['plain', 'plain64', 'essiv:sha256'].includes(iv))
    throw new Error(`LUKS IV generator '${iv}' is not supported`);
  if (!['sha1', 'sha256', 'sha512', 'ripemd160'].includes(hash)) throw new Error(`LUKS hash '${hash}' is not supported`);
  if (!lengths.includes(keyBytes) || keyBytes === 48) throw new Error(`LUKS key of ${keyBytes} bytes is not supported`);
  if (digestIterations === 0 || digestIterations > MAX_ITERATIONS) throw new Error('LUKS iteration count is out of range');
  for (const { active, stripes, iterations } of slots) {
    if (!active) continue;
    if (stripes === 0 || stripes > MAX_STRIPES) throw new Error('LUKS key slot has a number of stripes that cannot be');
    if (iterations === 0 || iterations > MAX_ITERATIONS) throw new Error('LUKS iteration count is out of range');
  }
}

/** Spreads a block over its own hash (section 2.4). */
function diffuse(hash: string, block: Uint8Array): Uint8Array {
  const out = new Uint8Array(block.length);
  const step = digest(hash, new Uint8Array(0)).length;
  for (let i = 0, at = 0; at < block.length; i++, at += step) {
    const part = block.subarray(at, at + step);
    const input = new Uint8Array(4 + part.length);
    view(input).setUint32(0, i);
    input.set(part, 4);
    out.set(digest(hash, input).subarray(0, part.length), at);
  }
  return out;
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((value, i) => value ^ b[i]!);
}

function merge(hash: string, split: Uint8Array, keyBytes: number, stripes: number): Uint8Array {
  let last = new Uint8Array(keyBytes);
  for (let i = 0; i < stripes; i++) {
    last = new Uint8Array(xor(last, split.subarray(i * keyBytes, (i + 1) * keyBytes)));
    if (i < stripes - 1) last = new Uint8Array(diffuse(hash, last));
  }
  return last;
}

function split(hash: string, key: Uint8Array, stripes: number): Uint8Array {
  const out = new Uint8Array(key.length * stripes);
  let last = new Uint8Array(key.length);
  for (let i = 0; i < stripes - 1; i++) {
    const random = randomBytes(key.length);
    out.set(random, i * key.length);
    last = new Uint8Array(diffuse(hash, new Uint8Array(xor(last, random))));
  }
  out.set(xor(last, key), (stripes - 1) * key.length);
  return out;
}

function randomBytes(length: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(length));
}

function cipherFor({ mode, iv }: Pick<LuksHeader, 'mode' | 'iv'>, key: Uint8Array): SectorCipher {
  return sectorCipher(key, { mode: mode as 'xts', iv: mode === 'ecb' ? 'null' : (iv as 'plain64') });
}

/** Key material in whole sectors. */
const materialBytes = (keyBytes: number, stripes: number): number => Math.ceil((keyBytes * stripes) / SECTOR) * SECTOR;

function trySlot(bytes: Uint8Array, header: LuksHeader, slot: Slot, password: Uint8Array): Uint8Array | null {
  const { hash, keyBytes } = header;
  const length = materialBytes(keyBytes, slot.stripes);
  if (slot.keyOffset + length > bytes.length) throw new Error('LUKS key material lies outside of the header');
  const material = bytes.slice(slot.keyOffset, slot.keyOffset + length);
  cipherFor(header, pbkdf2(hash, password, slot.salt, slot.iterations, keyBytes)).decrypt(material, 0);
  const key = merge(hash, material, keyBytes, slot.stripes);
  const check = pbkdf2(hash, key, header.digestSalt, header.digestIterations, DIGEST_BYTES);
  return check.every((value, i) => value === header.digest[i]) ? key : null;
}

/** @param bytes the header with all key material @throws Error when the password opens no slot */
export function openLuks(bytes: Uint8Array, password: Uint8Array): { cipher: SectorCipher; header: LuksHeader } {
  const header = parseLuks(bytes);
  for (const slot of header.slots) {
    if (!slot.active) continue;
    const key = trySlot(bytes, header, slot, password);
    if (key !== null) return { cipher: cipherFor(header, key), header };
  }
  throw new Error('Invalid password, cannot unlock any keyslot');
}

/** Bytes at the file's beginning that hold header and key material. */
export const luksHeaderBytes = (header: LuksHeader): number =>
  Math.max(
    HEADER_BYTES,
    ...header.slots.map(({ active, keyOffset, stripes }) => (active ? keyOffset + materialBytes(header.keyBytes, stripes) : 0)),
  );

/** As `qemu-img info` shows it. @param format to be named, where there are others */
export function luksInfo(bytes: Uint8Array, format: string | null): Record<string, unknown> {
  const header = parseLuks(bytes);
  const [ivgen = 'plain64', ivHash] = header.iv.split(':');
  return {
    'ivgen-alg': ivgen,
    ...(ivHash === undefined ? {} : { 'ivgen-hash-alg': ivHash }),
    'hash-alg': header.hash,
    'cipher-alg': `aes-${(header.keyBytes * 8) / (header.mode === 'xts' ? 2 : 1)}`,
    uuid: header.uuid,
    ...(format === null ? {} : { format }),
    'cipher-mode': header.mode,
    slots: header.slots.map(({ active, iterations, keyOffset, stripes }) => ({
      active,
      ...(active ? { iters: iterations } : {}),
      'key-offset': keyOffset,
      ...(active ? { stripes } : {}),
    })),
    'payload-offset': header.payloadOffset,
    'master-key-iters': header.digestIterations,
  };
}

/** Iterations that take about this long here. @param time milliseconds */
function iterationsFor(hash: string, keyBytes: number, time: number): number {
  const trial = 20_000;
  const start = performance.now();
  pbkdf2(hash, randomBytes(16), randomBytes(SALT_BYTES), trial, keyBytes);
  const passed = Math.max(0.01, performance.now() - start);
  return Math.max(LEAST_ITERATIONS, Math.min(MAX_ITERATIONS, Math.round((trial * time) / passed)));
}

/** @param iterTime milliseconds that unlocking takes @returns a header with one password, up to where data may begin */
export function createLuks(password: Uint8Array, iterTime: number, hash = 'sha256', keyBytes = 64): Uint8Array {
  const material = Math.ceil(materialBytes(keyBytes, STRIPES) / SECTOR / ALIGN) * ALIGN;
  const payload = ALIGN + SLOTS * material;
  const bytes = new Uint8Array(payload * SECTOR);
  const fields = view(bytes);
  const put = (value: string, at: number): void => bytes.set(new TextEncoder().encode(value), at);
  const key = randomBytes(keyBytes);
  const iterations = iterationsFor(hash, keyBytes, iterTime);
  put('LUKS', 0);
  fields.setUint16(4, 0xbabe);
  fields.setUint16(6, 1);
  put('aes', 8);
  put('xts-plain64', 40);
  put(hash, 72);
  fields.setUint32(104, payload);
  fields.setUint32(108, keyBytes);
  const digestSalt = randomBytes(SALT_BYTES);
  const digestIterations = Math.max(LEAST_ITERATIONS, Math.round(iterations / 8));
  bytes.set(pbkdf2(hash, key, digestSalt, digestIterations, DIGEST_BYTES), 112);
  bytes.set(digestSalt, 132);
  fields.setUint32(164, digestIterations);
  put(crypto.randomUUID(), 168);
  for (let i = 0; i < SLOTS; i++) {
    const at = 208 + 48 * i;
    fields.setUint32(at, INACTIVE);
    fields.setUint32(at + 40, ALIGN + i * material);
    fields.setUint32(at + 44, STRIPES);
  }
  const salt = randomBytes(SALT_BYTES);
  fields.setUint32(208, ACTIVE);
  fields.setUint32(212, iterations);
  bytes.set(salt, 216);
  const spread = new Uint8Array(materialBytes(keyBytes, STRIPES));
  spread.set(split(hash, key, STRIPES));
  cipherFor({ mode: 'xts', iv: 'plain64' }, pbkdf2(hash, password, salt, iterations, keyBytes)).encrypt(spread, 0);
  bytes.set(spread, ALIGN * SECTOR);
  return bytes;
}
