/** `qemu-img create -f qcow2`: its options, and what they make. */
import type { CreateOption, CreateValues, Creation, Target } from '../create.ts';
import type { BlockNode } from '../node.ts';
import { checkNew, type NewImage, preallocate, writeNew } from './create.ts';
import type { Qcow2Node } from './node.ts';

const encrypt = (name: string, help: string, type: CreateOption['type'] = 'str'): CreateOption => ({
  name: `encrypt.${name}`,
  type,
  help,
});

const OPTIONS: readonly CreateOption[] = [
  { name: 'encryption', type: 'bool', help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)" },
  encrypt('format', "Encrypt the image, format choices: 'aes', 'luks'"),
  encrypt('key-secret', 'ID of secret providing qcow AES key or LUKS passphrase'),
  encrypt('cipher-alg', 'Name of encryption cipher algorithm'),
  encrypt('cipher-mode', 'Name of encryption cipher mode'),
  encrypt('ivgen-alg', 'Name of IV generator algorithm'),
  encrypt('ivgen-hash-alg', 'Name of IV generator hash algorithm'),
  encrypt('hash-alg', 'Name of encryption hash algorithm'),
  encrypt('iter-time', 'Time to spend in PBKDF in milliseconds', 'num'),
  { name: 'cluster_size', type: 'size', help: 'qcow2 cluster size', otherwise: 65536 },
  { name: 'extended_l2', type: 'bool', help: 'Extended L2 tables', otherwise: false },
  { name: 'preallocation', type: 'str', help: 'Preallocation mode (allowed values: off, metadata, falloc, full)' },
  { name: 'compression_type', type: 'str', help: 'Compression method used for image cluster compression', otherwise: 'zlib' },
  { name: 'size', type: 'size', help: 'Virtual disk size' },
  { name: 'compat', type: 'str', help: 'Compatibility level (v2 [0.10] or v3 [1.1])' },
  { name: 'backing_file', type: 'str', help: 'File name of a base image' },
  { name: 'backing_fmt', type: 'str', help: 'Image format of the base image' },
  { name: 'data_file', type: 'str', help: 'File name of an external data file' },
  { name: 'data_file_raw', type: 'bool', help: 'The external data file must stay valid as a raw image' },
  { name: 'lazy_refcounts', type: 'bool', help: 'Postpone refcount updates', otherwise: false },
  { name: 'refcount_bits', type: 'num', help: 'Width of a reference count entry in bits', otherwise: 16 },
];

const text = (value: CreateValues[string]): string | null => (value === undefined || value === '' ? null : String(value));

export function versionOf(compat: CreateValues[string]): 2 | 3 {
  switch (compat ?? '1.1') {
    case '0.10':
    case 'v2':
      return 2;
    case '1.1':
    case 'v3':
      return 3;
    default:
      throw new Error(`Parameter 'version' does not accept value '${String(compat)}'`);
  }
}

export function newImage(values: CreateValues & { readonly size: number }): NewImage {
  const compression = values['compression_type'];
  if (compression !== 'zlib' && compression !== 'zstd')
    throw new Error(`Parameter 'compression-type' does not accept value '${String(compression)}'`);
  return {
    size: Math.ceil(values.size / 512) * 512,
    version: versionOf(values['compat']),
    clusterSize: Number(values['cluster_size']),
    refcountBits: Number(values['refcount_bits']),
    lazyRefcounts: values['lazy_refcounts'] === true,
    compression,
    extendedL2: values['extended_l2'] === true,
    backingFile: text(values['backing_file']),
    backingFormat: text(values['backing_fmt']),
    dataFile: text(values['data_file']),
    dataFileRaw: values['data_file_raw'] === true,
    luks: null,
  };
}

async function luksHeader(values: CreateValues, secrets: Target['secrets']): Promise<Uint8Array | null> {
  if (values['encryption'] === true || values['encrypt.format'] === 'aes') {
    throw new Error('the old AES encryption of qcow2 images is not supported; use encrypt.format=luks');
  }
  if (values['encrypt.format'] === undefined) return null;
  const { luksFromOptions } = await import('../luks-create.ts');
  return luksFromOptions(values, 'encrypt.', secrets);
}

async function create(values: CreateValues & { readonly size: number }, target: Target): Promise<void> {
  const image = newImage(values);
  checkNew(image);
  let mode = String(values['preallocation'] ?? 'off');
  if (!['off', 'metadata', 'falloc', 'full'].includes(mode))
    throw new Error(`Parameter 'preallocation' does not accept value '${mode}'`);
  if (image.extendedL2 === false && image.backingFile !== null && mode !== 'off') {
    throw new Error('Backing file and preallocation can only be used at the same time if extended_l2 is enabled');
  }
  const luks = await luksHeader(values, target.secrets);
  const file = await target.newFile(target.filename);
  let data: BlockNode | null = null;
  try {
    await writeNew(file, { ...image, luks });
    if (image.dataFile !== null) {
      data = await target.newFile(image.dataFile);
      await data.resize(image.size, 'off');
    }
    await file.flush();
  } finally {
    await file.close();
    await data?.close();
  }
  // A file that is the disk itself has a place for every cluster from the start.
  if (image.dataFileRaw && mode === 'off') mode = 'metadata';
  if (mode !== 'off') await fill(target, image.size, mode);
}

async function fill(target: Target, size: number, mode: string): Promise<void> {
  const { node, close } = await target.reopen();
  try {
    await preallocate(node as Qcow2Node, 0, size, mode);
  } finally {
    await close();
  }
}

export const qcow2Creation: Creation = { options: OPTIONS, create };
