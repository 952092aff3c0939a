/** Makes new images. */
import { openBlockFile } from '#host/block-file';
import { RIGHT } from './driver.ts';
import { FileNode } from './file.ts';
import { HOW } from './graph.ts';
import type { BlockNode } from './node.ts';
import { flag, integer, size as sizeField, text } from './schema.ts';
import { ValueError } from './values.ts';

export type CreateValue = string | number | boolean;
export type CreateValues = { readonly [name: string]: CreateValue | undefined };

export interface CreateOption {
  readonly name: string;
  readonly type: 'str' | 'size' | 'bool' | 'num';
  readonly help: string;
  readonly otherwise?: CreateValue;
  /** The option is `file`'s, which all formats have. */
  readonly hidden?: boolean;
}

/** What making an image needs beside its options. */
export interface Target {
  readonly filename: string;
  readonly secrets: ReadonlyMap<string, Uint8Array>;
  /** An empty file. @param shared others may write to it meanwhile, as they may to any raw disk */
  newFile(name: string, shared?: boolean): Promise<BlockNode>;
  /** Another image's file, only to be read. */
  openFile(name: string): Promise<BlockNode>;
  /** Opens the finished image, to put something in it. */
  reopen(): Promise<{ node: BlockNode; close: () => Promise<void> }>;
}

export interface Creation {
  /** In the order in which QEMU names them when it makes an image. */
  readonly options: readonly CreateOption[];
  create(values: CreateValues & { readonly size: number }, target: Target): Promise<void>;
}

type Load = () => Promise<Creation>;

const CREATIONS: Record<string, Load> = {
  raw: () => import('./raw-create.ts').then(({ rawCreation }) => rawCreation),
  luks: () => import('./luks-disk.ts').then(({ luksCreation }) => luksCreation),
  vhdx: () => import('./vhdx-create.ts').then(({ vhdxCreation }) => vhdxCreation),
  parallels: () => import('./parallels.ts').then(({ parallelsCreation }) => parallelsCreation),
  qed: () => import('./qed.ts').then(({ qedCreation }) => qedCreation),
  vdi: () => import('./vdi.ts').then(({ vdiCreation }) => vdiCreation),
  vmdk: () => import('./vmdk-create.ts').then(({ vmdkCreation }) => vmdkCreation),
  vpc: () => import('./vpc-create.ts').then(({ vpcCreation }) => vpcCreation),
  qcow2: () => import('./qcow2/creation.ts').then(({ qcow2Creation }) => qcow2Creation),
};

export const CREATABLE: readonly string[] = Object.keys(CREATIONS).sort();

/** @throws Error when there is no such format, or none of it can be made */
export async function findCreation(format: string, known: readonly string[]): Promise<Creation> {
  if (Object.hasOwn(CREATIONS, format)) return CREATIONS[format]!();
  if (known.includes(format)) throw new Error(`Format driver '${format}' does not support image creation`);
  throw new Error(`Unknown file format '${format}'`);
}

/** `a=b,c` as after `-o`: a bare word switches something on. @throws ValueError in QEMU's words */
export function parseCreateOptions(creation: Creation, given: ReadonlyMap<string, string>): Record<string, CreateValue> {
  const values: Record<string, CreateValue> = {};
  for (const { name, otherwise } of creation.options) if (otherwise !== undefined) values[name] = otherwise;
  for (const [name, value] of given) {
    const option = creation.options.find((one) => one.name === name);
    if (option === undefined) throw new ValueError(`Invalid parameter '${name}'`);
    values[name] = readers[option.type](value, name);
  }
  return values;
}

const number = integer(0, Number.MAX_SAFE_INTEGER);
const readers: Record<CreateOption['type'], (value: string, name: string) => CreateValue> = {
  str: (value, name) => text.read(value, name),
  size: (value, name) => sizeField.read(value, name),
  bool: (value, name) => flag.read(value, name),
  num: (value, name) => {
    if (!/^(0x[0-9a-f]+|\d+)$/i.test(value)) throw new ValueError(`Parameter '${name}' expects a number`);
    return number.read(value, name);
  },
};

/** The line that says what is made. */
export function describeCreation(filename: string, format: string, creation: Creation, values: CreateValues): string {
  const show = (value: CreateValue): string => {
    if (typeof value === 'boolean') return value ? 'on' : 'off';
    return String(value).replaceAll(',', ',,');
  };
  const parts = creation.options
    .filter(({ name }) => values[name] !== undefined)
    .map(({ name }) => ` ${name}=${show(values[name]!)}`);
  return `Formatting '${filename}', fmt=${format}${parts.join('')}`;
}

/** See `Target.openFile`. @throws Error in one line */
export async function openFile(path: string): Promise<BlockNode> {
  const how = { writable: false, create: false, direct: false, immediate: true, overlap: false };
  const host = await openBlockFile(path.replace(/^file:/, ''), how).catch((error: Error) => {
    throw new Error(`Could not open '${path}': ${error.message}`);
  });
  return new FileNode('file', host, HOW);
}

/** See `Target.newFile`. @throws Error in one line */
export async function newFile(path: string, shared = false): Promise<BlockNode> {
  const host = await openBlockFile(path.replace(/^file:/, ''), {
    writable: true,
    create: true,
    direct: false,
    immediate: true,
    overlap: false,
  }).catch((error: Error) => {
    throw new Error(`Could not create '${path}': ${error.message}`);
  });
  // A crash of the host leaves a new image that is not there: no worse than none.
  const file = new FileNode('file', host, { ...HOW, writable: true, unmap: true, noFlush: true });
  file.filename = path;
  file.unmap = true;
  try {
    file.lock(RIGHT.write | RIGHT.resize, RIGHT.resize | (shared ? 0 : RIGHT.write));
    if (!host.isDevice) host.truncate(0);
  } catch (error) {
    file.close();
    throw error;
  }
  return file;
}
