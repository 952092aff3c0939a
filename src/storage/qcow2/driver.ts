/** Opens qcow2 images. */
import { driver, type How, type Opening } from '../driver.ts';
import { type BlockNode, readBytes } from '../node.ts';
import { resolveBacking } from '../names.ts';
import { choice, flag, group, integer, node, nodeOrNull, optional, type Schema, size, text, type Values } from '../schema.ts';
import { AUTOCLEAR, type Header, INCOMPATIBLE, parseHeader, viewOf } from './header.ts';
import { Image } from './image.ts';
import { Qcow2Node } from './node.ts';

const OPTIONS = {
  file: node,
  backing: optional(nodeOrNull, undefined),
  'data-file': optional(node, null),
  'lazy-refcounts': optional(flag, null),
  'pass-discard-request': optional(flag, null),
  'pass-discard-snapshot': optional(flag, true),
  'pass-discard-other': optional(flag, false),
  'overlap-check': optional(choice('none', 'constant', 'cached', 'all'), 'cached'),
  'cache-size': optional(size, null),
  'l2-cache-size': optional(size, null),
  'l2-cache-entry-size': optional(size, null),
  'refcount-cache-size': optional(size, null),
  'cache-clean-interval': optional(integer(0, 2 ** 31), 0),
  encrypt: optional(group({ format: choice('luks', 'aes'), 'key-secret': text }), null),
} satisfies Schema;

type Options = Values<typeof OPTIONS>;

/** What the first read fetches: the header with its extensions is in one cluster. */
const HEADER_BYTES = 65536;

async function open(values: Options, opening: Opening): Promise<BlockNode> {
  const { how } = opening;
  const file = await opening.child(values.file, { share: false, resize: true });
  let bytes = await readBytes(file, 0, Math.min(HEADER_BYTES, file.size));
  if (bytes.length >= 24) {
    const needed = 2 ** Math.min(21, viewOf(bytes).getUint32(20));
    if (needed > bytes.length && file.size > bytes.length) bytes = await readBytes(file, 0, Math.min(needed, file.size));
  }
  const header = parseHeader(bytes, file.size);
  checkUse(header, how);
  const data = await openData(values, header, opening, file);
  const l1 = await readBytes(file, header.l1Offset, Math.min(header.l1Entries * 8, Math.max(0, file.size - header.l1Offset)));
  const l1Whole = new Uint8Array(header.l1Entries * 8);
  l1Whole.set(l1);
  const reftable = await readReftable(file, header);
  const readOnly = !how.writable || file.readOnly;
  if (values['lazy-refcounts'] !== null && header.version === 3) {
    header.compatible = values['lazy-refcounts'] ? header.compatible | 1 : header.compatible & ~1;
  }
  const cache = { l2: values['l2-cache-size'] ?? values['cache-size'], refcount: values['refcount-cache-size'] };
  const image = new Image(header, viewOf(l1Whole), reftable, { file, data, readOnly }, cache, how.warn);
  const cipher = header.encryption === 0 || how.repairing ? null : await openCipher(values, header, opening, file);
  const backing = await openBacking(values, header, opening, file);
  const opened = new Qcow2Node(image, backing, cipher?.cipher ?? null);
  opened.encryptionInfo = cipher?.info ?? null;
  opened.filename = file.filename;
  opened.unmap = how.unmap;
  if (!readOnly) await prepare(opened, how);
  return opened;
}

/** @throws Error where the state of the image forbids what is asked */
function checkUse(header: Header, how: How): void {
  if (how.repairing) return;
  if ((header.incompatible & INCOMPATIBLE.corrupt) !== 0 && how.writable) {
    throw new Error('qcow2: Image is corrupt; cannot be opened read/write');
  }
}

async function readReftable(file: BlockNode, header: Header): Promise<DataView> {
  const length = header.reftableClusters * 2 ** header.clusterBits;
  const there = Math.min(length, file.size - header.reftableOffset);
  const bytes = new Uint8Array(length);
  bytes.set(await readBytes(file, header.reftableOffset, there));
  return viewOf(bytes);
}

async function openData(values: Options, header: Header, opening: Opening, file: BlockNode): Promise<BlockNode> {
  const external = (header.incompatible & INCOMPATIBLE.dataFile) !== 0;
  const given = values['data-file'];
  if (!external) {
    if (given !== null) throw new Error("'data-file' can only be set for images with an external data file");
    return file;
  }
  if (given !== null) return opening.child(given, { share: false, unmap: true });
  if (header.dataFile === null) throw new Error("'data-file' is required for this image");
  return opening.image(resolveBacking(file.filename, header.dataFile), 'raw', { share: false, unmap: true });
}

async function openCipher(values: Options, header: Header, opening: Opening, file: BlockNode) {
  const place = header.encryptionHeader;
  if (header.encryption !== 2 || place === null) throw new Error('the old AES encryption of qcow2 images is not supported');
  const { openLuks, luksInfo } = await import('../luks.ts');
  const bytes = await readBytes(file, place.offset, Math.min(place.length, file.size - place.offset));
  const info = luksInfo(bytes, 'luks');
  if (values.encrypt === null) {
    // Metadata can be looked at without the key; data cannot.
    if (opening.how.noBacking) return { cipher: null, info };
    throw new Error("Parameter 'encrypt.key-secret' is required for cipher");
  }
  const id = values.encrypt['key-secret'];
  const secret = opening.how.secrets.get(id);
  if (secret === undefined) throw new Error(`No secret with id '${id}'`);
  return { cipher: openLuks(bytes, secret).cipher, info };
}

async function openBacking(values: Options, header: Header, opening: Opening, file: BlockNode): Promise<BlockNode | null> {
  const { how } = opening;
  if (values.backing === null || how.noBacking) return null;
  const below = { writable: false, share: false, resize: false, autoReadOnly: false };
  if (values.backing !== undefined) return opening.child(values.backing, below, true);
  if (header.backingFile === null) return null;
  const name = resolveBacking(file.filename, header.backingFile);
  try {
    return await opening.image(name, header.backingFormat, below);
  } catch (error) {
    throw new Error(`Could not open backing file: ${(error as Error).message}`);
  }
}

/** What must be done before the first write. */
async function prepare(opened: Qcow2Node, how: How): Promise<void> {
  const { header } = opened.image;
  if ((header.incompatible & INCOMPATIBLE.dirty) !== 0 && !how.repairing) {
    const { checkImage } = await import('./check.ts');
    const result = await checkImage(opened, 'all', () => undefined);
    if (result.errors > 0) throw new Error('Could not repair dirty image');
  }
  const known = AUTOCLEAR.bitmaps | AUTOCLEAR.rawData;
  if ((header.autoclear & ~known) !== 0) {
    header.autoclear &= known;
    if (header.version === 3) for (const promise of opened.image.saveFeatures()) await promise;
  }
  if (header.bitmaps !== null && !how.repairing) {
    const { openBitmaps } = await import('./bitmaps.ts');
    opened.bitmaps = await openBitmaps(opened);
    await opened.bitmaps.mark();
  }
}

export const qcow2Driver = driver({ name: 'qcow2', protocol: false, options: OPTIONS, open });
