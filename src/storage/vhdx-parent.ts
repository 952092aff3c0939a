/**
 * What a differencing VHDX says of its parent ([MS-VHDX], 2.6.2.6): a metadata item of pairs of texts (UTF-16).
 *
 *   0 GUID of the kind   18 pairs (16 bits)   20 pairs of 12: 0 where the key is   4 where the value is   8 key's bytes   10 value's
 */
import { resolveBacking } from './names.ts';
import type { Opening } from './driver.ts';
import { type BlockNode } from './node.ts';

const HEADER = 20;
const PAIR = 12;
/** Bytes of an item at most. */
export const MAX_LOCATOR = 2 ** 20;
/** Keys by which the parent may be found, in the order of trying. */
const NAMES = ['relative_path', 'absolute_win32_path', 'volume_path'] as const;
const LINKAGE = ['parent_linkage', 'parent_linkage2'] as const;

export type ParentLocator = ReadonlyMap<string, string>;

/** @throws Error when it is damaged */
export function parseLocator(bytes: Uint8Array): ParentLocator {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const bad = (): Error => new Error('VHDX: the parent locator is not valid');
  if (bytes.length < HEADER) throw bad();
  const found = new Map<string, string>();
  const text = (at: number, length: number): string => {
    if (at + length > bytes.length) throw bad();
    return new TextDecoder('utf-16le').decode(bytes.subarray(at, at + length));
  };
  const count = view.getUint16(18, true);
  if (HEADER + PAIR * count > bytes.length) throw bad();
  for (let i = 0; i < count; i++) {
    const at = HEADER + PAIR * i;
    const key = text(view.getUint32(at, true), view.getUint16(at + 8, true));
    found.set(key, text(view.getUint32(at + 4, true), view.getUint16(at + 10, true)));
  }
  return found;
}

/** @param kind 16 bytes @returns an item's bytes */
export function buildLocator(kind: Uint8Array, pairs: ParentLocator): Uint8Array {
  const utf16 = (value: string): Uint8Array => new Uint8Array(Uint16Array.from(value, (letter) => letter.charCodeAt(0)).buffer);
  const texts = [...pairs].map(([key, value]) => [utf16(key), utf16(value)] as const);
  const start = HEADER + PAIR * texts.length;
  const bytes = new Uint8Array(texts.reduce((sum, [key, value]) => sum + key.length + value.length, start));
  const view = new DataView(bytes.buffer);
  bytes.set(kind);
  view.setUint16(18, texts.length, true);
  let end = start;
  texts.forEach(([key, value], i) => {
    const at = HEADER + PAIR * i;
    view.setUint32(at, end, true);
    view.setUint32(at + 4, end + key.length, true);
    view.setUint16(at + 8, key.length, true);
    view.setUint16(at + 10, value.length, true);
    bytes.set(key, end);
    bytes.set(value, end + key.length);
    end += key.length + value.length;
  });
  return bytes;
}

/** A GUID as locators have it: in braces, its first three groups from their highest digit on. */
export function guidText(bytes: Uint8Array): string {
  const hex = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
    .map((at) => bytes[at]!.toString(16).padStart(2, '0'))
    .join('');
  return `{${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}}`;
}

/** @param dataWrites the parent's GUID of data writes @throws Error when it is another disk's, or has been written to since */
export function checkLinkage(locator: ParentLocator, dataWrites: Uint8Array): void {
  const is = guidText(dataWrites);
  if (LINKAGE.some((key) => locator.get(key)?.toLowerCase() === is)) return;
  throw new Error('VHDX: the parent has been written to since the differencing disk was made, or is another disk');
}

/** Names of the parent as this host has them, the one to try first before the others. */
export function parentNames(locator: ParentLocator): string[] {
  const names = NAMES.map((key) => locator.get(key) ?? '').filter((path) => path !== '');
  return names.map((path) => path.replaceAll('\\', '/').replace(/^\.\//, ''));
}

/** @throws Error when it cannot be opened by any of its names */
export async function openParent(name: string, locator: ParentLocator, { image }: Opening): Promise<BlockNode> {
  let failure: unknown = new Error('the parent has no name');
  for (const path of parentNames(locator)) {
    try {
      return await image(resolveBacking(name, path), 'vhdx', { writable: false, share: false, resize: false });
    } catch (error) {
      failure = error;
    }
  }
  throw new Error(`Could not open the parent of a differencing disk: ${(failure as Error).message}`);
}
