/** Ciphers and digests that encrypted disks need. */
import type { SectorCipher } from '../host.ts';

const SECTOR = 512;

/** Loaded when it is needed: most images are not encrypted. */
const library = () => process.getBuiltinModule('node:crypto');

export type SectorMode = { readonly mode: 'xts' | 'cbc' | 'ecb'; readonly iv: 'plain' | 'plain64' | 'essiv:sha256' | 'null' };

export function digest(hash: string, data: Uint8Array): Uint8Array {
  return new Uint8Array(library().createHash(hash).update(data).digest());
}

export function pbkdf2(hash: string, password: Uint8Array, salt: Uint8Array, iterations: number, length: number): Uint8Array {
  return new Uint8Array(library().pbkdf2Sync(password, salt, iterations, length, hash));
}

class AesSectors implements SectorCipher {
  private readonly name: string;
  private readonly key: Uint8Array;
  private readonly mode: SectorMode;
  private readonly saltKey: Uint8Array | null;
  private readonly iv = new Uint8Array(16);
  private readonly ivView = new DataView(this.iv.buffer);

  constructor(key: Uint8Array, mode: SectorMode) {
    // XTS has two keys.
    this.name = `aes-${(key.length * 8) / (mode.mode === 'xts' ? 2 : 1)}-${mode.mode}`;
    this.key = key;
    this.mode = mode;
    this.saltKey = mode.iv === 'essiv:sha256' ? digest('sha256', key) : null;
  }

  encrypt(data: Uint8Array, sector: number): void {
    this.each(data, sector, (part, iv) => {
      const cipher = library().createCipheriv(this.name, this.key, iv);
      cipher.setAutoPadding(false);
      return cipher.update(part);
    });
  }

  decrypt(data: Uint8Array, sector: number): void {
    this.each(data, sector, (part, iv) => {
      const cipher = library().createDecipheriv(this.name, this.key, iv);
      cipher.setAutoPadding(false);
      return cipher.update(part);
    });
  }

  private each(data: Uint8Array, sector: number, change: (part: Uint8Array, iv: Uint8Array | null) => Uint8Array): void {
    for (let at = 0; at < data.length; at += SECTOR) {
      const part = data.subarray(at, at + SECTOR);
      part.set(change(part, this.vector(sector + at / SECTOR)));
    }
  }

  private vector(sector: number): Uint8Array | null {
    if (this.mode.mode === 'ecb') return null;
    this.iv.fill(0);
    if (this.mode.iv === 'null') return this.iv;
    this.ivView.setUint32(0, sector % 2 ** 32, true);
    if (this.mode.iv !== 'plain') this.ivView.setUint32(4, Math.floor(sector / 2 ** 32), true);
    if (this.saltKey === null) return this.iv;
    const cipher = library().createCipheriv('aes-256-ecb', this.saltKey, null);
    cipher.setAutoPadding(false);
    return cipher.update(this.iv);
  }
}

/** @param key 16 to 32 bytes, twice that for XTS */
export function sectorCipher(key: Uint8Array, mode: SectorMode): SectorCipher {
  return new AesSectors(key, mode);
}
