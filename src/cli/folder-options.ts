/** `-fsdev` and `-virtfs`: folders of the host's for guests. */
import { type FolderConfig, SECURITY_MODELS } from '../machine/config.ts';
import { onlyKeys, parseList, parseSwitch, ValueError } from './values.ts';

export interface FolderOption {
  readonly option: string;
  readonly text: string;
  readonly config: FolderConfig;
}

const KEYS = ['fsdriver', 'id', 'path', 'security_model', 'readonly', 'writeout', 'multidevs', 'fmode', 'dmode'];

/** @throws ValueError */
export function parseFsdev(text: string): FolderOption {
  const values = parseList(text, 'fsdriver');
  onlyKeys(values, KEYS);
  const id = values.get('id');
  if (id === undefined) throw new ValueError('fsdev: No id specified');
  return { option: '-fsdev', text, config: folderOf(values, id) };
}

/** A folder and the device that shows it. @returns the folder, and the tag that it is mounted by @throws ValueError */
export function parseVirtfs(text: string, index: number): { folder: FolderOption; tag: string } {
  const values = parseList(text, 'fsdriver');
  onlyKeys(values, [...KEYS, 'mount_tag']);
  const tag = values.get('mount_tag');
  if (tag === undefined) throw new ValueError('Usage: -virtfs fsdriver,mount_tag=tag');
  const id = values.get('id') ?? `fsdev-${tag}-${index}`;
  return { folder: { option: '-virtfs', text, config: folderOf(values, id) }, tag };
}

function folderOf(values: ReadonlyMap<string, string>, id: string): FolderConfig {
  const driver = values.get('fsdriver') ?? '';
  if (driver !== 'local') throw new ValueError(`fsdriver ${driver} not found (known: local)`);
  const path = values.get('path');
  if (path === undefined) throw new ValueError('fsdev: path property not set');
  const given = values.get('security_model');
  const model = given === 'mapped' ? 'mapped-xattr' : given;
  if (model === undefined) throw new ValueError(`security_model= is missing (${SECURITY_MODELS.join(', ')})`);
  if (!SECURITY_MODELS.includes(model as never)) {
    throw new ValueError(`security_model=${model} is not known (known: ${SECURITY_MODELS.join(', ')})`);
  }
  const readOnly = values.has('readonly') && parseSwitch('readonly', values.get('readonly')!);
  return { id, path, securityModel: model as FolderConfig['securityModel'], readOnly };
}
