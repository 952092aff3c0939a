/** The text that describes a VMDK: what it is made of, and what lies behind it. */

export type ExtentLine = {
  readonly access: string;
  /** Sectors. */
  readonly sectors: number;
  readonly type: string;
  readonly file: string | null;
  /** Sectors into the file, of flat extents. */
  readonly offset: number;
};

export type Descriptor = {
  readonly createType: string;
  readonly cid: number;
  readonly parentCid: number;
  readonly parent: string | null;
  readonly extents: readonly ExtentLine[];
};

export const NO_PARENT = 0xffffffff;
const MAX_EXTENTS = 10_000;

const EXTENT = /^(RW|RDONLY|NOACCESS)\s+(\d+)\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+(\d+))?)?/;

/** @throws Error where the text is not a descriptor */
export function parseDescriptor(text: string): Descriptor {
  const values = new Map<string, string>();
  const extents: ExtentLine[] = [];
  for (const line of text.split(/\r?\n/)) {
    const extent = EXTENT.exec(line);
    if (extent !== null) {
      const [, access, sectors, type, file, offset] = extent;
      if (extents.length === MAX_EXTENTS) throw new Error('too many extents');
      if (!Number.isSafeInteger(Number(sectors)) || !Number.isSafeInteger(Number(offset ?? 0)))
        throw new Error(`Invalid extent line: ${line}`);
      extents.push({ access: access!, sectors: Number(sectors), type: type!, file: file ?? null, offset: Number(offset ?? 0) });
      continue;
    }
    const value = /^\s*([A-Za-z.]+)\s*=\s*"?([^"]*)"?\s*$/.exec(line);
    if (value !== null && !line.startsWith('#')) values.set(value[1]!.toLowerCase(), value[2]!);
  }
  const createType = values.get('createtype');
  if (createType === undefined) throw new Error('invalid VMDK image descriptor');
  const hex = (key: string, otherwise: number): number => {
    const value = Number.parseInt(values.get(key) ?? '', 16);
    return Number.isNaN(value) ? otherwise : value >>> 0;
  };
  const parentCid = hex('parentcid', NO_PARENT);
  const parent = parentCid === NO_PARENT ? null : (values.get('parentfilenamehint') ?? null);
  return { createType, cid: hex('cid', NO_PARENT), parentCid, parent, extents };
}

export type DescriptorFacts = {
  readonly createType: string;
  readonly cid: number;
  readonly parent: { readonly cid: number; readonly name: string } | null;
  readonly extentLines: readonly string[];
  readonly sectors: number;
  readonly adapter: string;
  readonly hwVersion: string;
  readonly toolsVersion: string | null;
};

const hex8 = (value: number): string => value.toString(16).padStart(8, '0');

export function makeDescriptor(facts: DescriptorFacts): string {
  const { createType, cid, parent, extentLines, sectors, adapter } = facts;
  const heads = adapter === 'ide' ? 16 : 255;
  return [
    '# Disk DescriptorFile',
    'version=1',
    `CID=${hex8(cid)}`,
    `parentCID=${parent === null ? 'ffffffff' : hex8(parent.cid)}`,
    `createType="${createType}"`,
    ...(parent === null ? [] : [`parentFileNameHint="${parent.name}"`]),
    '',
    '# Extent description',
    ...extentLines,
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    `ddb.virtualHWVersion = "${facts.hwVersion}"`,
    `ddb.geometry.cylinders = "${Math.floor(sectors / (63 * heads))}"`,
    `ddb.geometry.heads = "${heads}"`,
    'ddb.geometry.sectors = "63"',
    `ddb.adapterType = "${adapter}"`,
    ...(facts.toolsVersion === null ? [] : [`ddb.toolsVersion = "${facts.toolsVersion}"`]),
    '',
  ].join('\n');
}
