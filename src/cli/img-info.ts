/** `info` and `snapshot -l`. */
import { skipFilters } from '../storage/chain.ts';
import { resolveBacking } from '../storage/names.ts';
import type { BlockNode, NodeInfo, SnapshotInfo } from '../storage/node.ts';
import { type Arguments, has, lastOf, parseArguments, usage } from './img-args.ts';
import { humanSize, Images, prettyJson, print, wantsJson } from './img-open.ts';

type Facts = {
  name: string;
  driver: string;
  filename: string;
  size: number;
  allocated: number | null;
  backingName: BlockNode['backingName'];
  info: NodeInfo;
};

export async function infoCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(argv, 'f:U', ['output=', 'backing-chain', 'force-share']);
  if (args.rest.length !== 1) throw usage('Expecting one image file name');
  const json = wantsJson(lastOf(args, 'output'));
  const chain = await collect(args);
  if (json) {
    const all = chain.map(jsonInfo);
    print(prettyJson(has(args, 'backing-chain') ? all : all[0]));
  } else print(chain.map(humanInfo).join('\n'));
  return 0;
}

async function collect(args: Arguments): Promise<Facts[]> {
  const found: Facts[] = [];
  let name = args.rest[0]!;
  let format = lastOf(args, 'f');
  let imageOpts = has(args, 'image-opts');
  for (;;) {
    const one = await look(args, name, { format, imageOpts, chain: found.map((before) => before.name) });
    found.push(one);
    if (!has(args, 'backing-chain') || one.backingName === null) return found;
    name = resolveBacking(one.filename, one.backingName.file);
    format = one.backingName.format;
    imageOpts = false;
  }
}

type Look = { readonly format: string | null; readonly imageOpts: boolean; readonly chain: readonly string[] };

async function look(args: Arguments, name: string, { format, imageOpts, chain }: Look): Promise<Facts> {
  const images = new Images(args);
  try {
    const node = await images.open(name, { format, imageOpts, how: { noBacking: true, chain } });
    const { driver, backingName } = skipFilters(node);
    const info = await node.info();
    return {
      name: imageOpts ? node.filename : name,
      driver,
      filename: node.filename,
      size: node.size,
      allocated: node.allocatedBytes(),
      backingName,
      info,
    };
  } finally {
    await images.close();
  }
}

function jsonInfo({ name, driver, filename, size, allocated, backingName, info }: Facts): Record<string, unknown> {
  const put = (key: string, value: unknown) => (value === undefined || value === null ? {} : { [key]: value });
  return {
    ...(info.snapshots?.length ? { snapshots: info.snapshots.map(jsonSnapshot) } : {}),
    ...put('backing-filename-format', backingName?.format),
    'virtual-size': size,
    filename: name,
    ...put('cluster-size', info.clusterSize),
    format: driver,
    ...put('actual-size', allocated),
    ...put('format-specific', info.specific),
    ...(backingName === null
      ? {}
      : { 'full-backing-filename': fullName(filename, backingName.file), 'backing-filename': backingName.file }),
    ...(info.encrypted === true ? { encrypted: true } : {}),
    ...(info.compressed === true ? { compressed: true } : {}),
    ...(driver === 'parallels' ? {} : { 'dirty-flag': info.dirty ?? false }),
  };
}

function fullName(filename: string, backing: string): string {
  try {
    return resolveBacking(filename, backing);
  } catch {
    return backing;
  }
}

function jsonSnapshot(one: SnapshotInfo): Record<string, unknown> {
  return {
    ...(one.icount === null ? {} : { icount: Number(one.icount) }),
    'vm-clock-nsec': Number(one.vmClock % 1000000000n),
    name: one.name,
    'date-sec': one.seconds,
    'date-nsec': one.nanoseconds,
    'vm-clock-sec': Number(one.vmClock / 1000000000n),
    id: one.id,
    'vm-state-size': one.vmStateSize,
  };
}

function humanInfo({ name, driver, filename, size, allocated, backingName, info }: Facts): string {
  const lines = [
    `image: ${name}`,
    `file format: ${driver}`,
    `virtual size: ${humanSize(size)} (${size} bytes)`,
    `disk size: ${allocated === null ? 'unavailable' : humanSize(allocated)}`,
  ];
  if (info.encrypted === true) lines.push('encrypted: yes');
  if (info.clusterSize !== undefined) lines.push(`cluster_size: ${info.clusterSize}`);
  if (info.dirty === true) lines.push('cleanly shut down: no');
  if (backingName !== null) {
    const full = fullName(filename, backingName.file);
    lines.push(`backing file: ${backingName.file}${full === backingName.file ? '' : ` (actual path: ${full})`}`);
    if (backingName.format !== null) lines.push(`backing file format: ${backingName.format}`);
  }
  if (info.snapshots !== undefined && info.snapshots.length > 0) lines.push('Snapshot list:', ...snapshotTable(info.snapshots));
  if (info.specific !== undefined) {
    lines.push('Format specific information:', ...humanValue(info.specific.data, 1));
  }
  return `${lines.join('\n')}\n`;
}

function humanValue(value: object, depth: number): string[] {
  const indent = '    '.repeat(depth);
  return Object.entries(value).flatMap(([key, one]) => {
    const label = Array.isArray(value) ? `[${key}]` : key.replaceAll('-', ' ');
    if (typeof one === 'object' && one !== null) return [`${indent}${label}:`, ...humanValue(one, depth + 1)];
    return [`${indent}${label}: ${String(one)}`];
  });
}

const pad2 = (value: number): string => String(value).padStart(2, '0');

function localDate(seconds: number): string {
  const date = new Date(seconds * 1000);
  const day = `${date.getFullYear()}-${pad2(date.getMonth() + 1)}-${pad2(date.getDate())}`;
  return `${day} ${pad2(date.getHours())}:${pad2(date.getMinutes())}:${pad2(date.getSeconds())}`;
}

function clock(nanoseconds: bigint): string {
  const ms = Number(nanoseconds / 1000000n);
  const s = Math.floor(ms / 1000);
  return `${pad2(Math.floor(s / 3600))}:${pad2(Math.floor(s / 60) % 60)}:${pad2(s % 60)}.${String(ms % 1000).padStart(3, '0')}`;
}

function row(id: string, tag: string, size: string, date: string, time: string, icount: string): string {
  return `${id.padEnd(9)} ${tag.padEnd(16)} ${size.padStart(8)}${date.padStart(20)}${time.padStart(13)}${icount.padStart(11)}`;
}

/** Lines of a table of snapshots, with its head. */
export function snapshotTable(list: readonly SnapshotInfo[]): string[] {
  return [
    row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT'),
    ...list.map((one) =>
      row(
        one.id,
        one.name,
        humanSize(one.vmStateSize),
        localDate(one.seconds),
        clock(one.vmClock),
        one.icount === null ? '' : String(one.icount),
      ),
    ),
  ];
}
