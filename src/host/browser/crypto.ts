/** A web page's ciphers do not include those of encrypted disks. */
import type { SectorCipher } from '../host.ts';

function missing(): never {
  throw new Error('encrypted disks are not available in a web page');
}

export const digest = (_hash: string, _data: Uint8Array): Uint8Array => missing();
export const pbkdf2 = (
  _hash: string,
  _password: Uint8Array,
  _salt: Uint8Array,
  _iterations: number,
  _length: number,
): Uint8Array => missing();
export const sectorCipher = (_key: Uint8Array, _mode: { mode: string; iv: string }): SectorCipher => missing();
