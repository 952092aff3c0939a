/** The graph of block nodes: opens them by options or by name, and closes them again. */
import { COMMON, type Driver, type How, type Opening } from './driver.ts';
import { findDriver, protocolOf } from './drivers.ts';
import type { BlockNode } from './node.ts';
import { PROBE_LENGTH, probe } from './probe.ts';
import { type Given, readOptions, type Values } from './schema.ts';
import { parseJson, ValueError } from './values.ts';

/** Longest chain of backing files; loops are found before, by the names. */
const MAX_DEPTH = 200;

export const HOW: How = {
  writable: false,
  autoReadOnly: false,
  direct: false,
  noFlush: false,
  unmap: false,
  immediate: false,
  overlap: false,
  share: false,
  forceShare: false,
  resize: false,
  noBacking: false,
  chain: [],
  secrets: new Map(),
  throttleGroups: new Map(),
  warn: () => undefined,
  probed: false,
  repairing: false,
};

type Common = Values<typeof COMMON>;

export class Graph {
  /** Nodes by name. */
  readonly nodes = new Map<string, BlockNode>();
  private readonly children = new Map<BlockNode, BlockNode[]>();
  private readonly users = new Map<BlockNode, number>();
  private unnamed = 0;

  /**
   * Opens a node by its options, as `blockdev-add` has them.
   * @throws Error in one line
   */
  async open(given: Given, how: How): Promise<BlockNode> {
    const { filename, ...rest } = given;
    if (given['driver'] === undefined && given['file'] === undefined) {
      if (typeof filename !== 'string') throw new ValueError("Parameter 'driver' is missing");
      return this.openImage(filename, null, how, rest);
    }
    if (given['driver'] === undefined) {
      const file = await this.ref(given['file'] as Given | string, fileHow(how));
      const format = await probeNode(file);
      const used = { ...given, driver: format, file: file.nodeName };
      return this.openChecked(used, how, file);
    }
    return this.openDriver(given, how);
  }

  /**
   * Opens an image by the name that a user gives it.
   * @param format null for whatever it is
   * @param more further options of the format's node; those in `file` are its file's
   */
  async openImage(name: string, format: string | null, how: How, more: Given = {}): Promise<BlockNode> {
    checkChain(name, how);
    const chained: How = { ...how, chain: [...how.chain, name] };
    if (name.startsWith('json:')) {
      const given = parseJson(name.slice(5));
      return this.open(format === null ? { ...given, ...more } : { driver: format, ...given, ...more }, chained);
    }
    if (format !== null && (await findDriver(format)).protocol) {
      return this.openNamed(await this.openDriver({ ...(await fileOptions(name, format)), ...more }, chained), name);
    }
    const { file: below, ...rest } = more;
    const file = await this.openFile(name, below, rest, chained);
    file.filename = name;
    const chosen = format ?? (await this.probed(file));
    const given: Given = { driver: chosen, file: file.nodeName, ...rest };
    const probed = format === null && chosen === 'raw' && how.writable;
    return this.openNamed(await this.openChecked(given, { ...chained, probed }, file), name);
  }

  /**
   * Opens the file of an image that is named.
   * @param below what only the file is told (`file.locking`)
   * @param above what the image is told, of which the file is told what all nodes may be: its cache
   */
  private async openFile(name: string, below: unknown, above: Given, how: How): Promise<BlockNode> {
    const common = Object.fromEntries(Object.entries(above).filter(([option]) => Object.hasOwn(COMMON, option)));
    const own = ownHow(readOptions(COMMON, { ...common, driver: '' }) as Common, how);
    if (typeof below === 'string') throw new ValueError(`'${name}' is named, and so is the node '${below}' as its file`);
    const more = typeof below === 'object' ? below : {};
    return this.openDriver({ ...(await fileOptions(name, null)), ...more }, fileHow(own));
  }

  /** Takes a node in that was made elsewhere. */
  add(node: BlockNode, name: string): void {
    node.nodeName = this.nameFor(name);
    this.adopt(node, []);
  }

  /** Closes a node, and those below it that nobody else uses. */
  async close(node: BlockNode): Promise<void> {
    const left = (this.users.get(node) ?? 1) - 1;
    this.users.set(node, left);
    if (left > 0) return;
    this.nodes.delete(node.nodeName);
    this.users.delete(node);
    const below = this.children.get(node) ?? [];
    this.children.delete(node);
    try {
      await node.close();
    } finally {
      for (const child of below) await this.close(child);
    }
  }

  /** Another node is over it. */
  isUsed(node: BlockNode): boolean {
    return (this.users.get(node) ?? 0) > 0;
  }

  async closeAll(): Promise<void> {
    const below = new Set([...this.children.values()].flat());
    for (const node of [...this.nodes.values()]) if (!below.has(node)) await this.close(node);
  }

  private openNamed(node: BlockNode, name: string): BlockNode {
    node.filename = name;
    return node;
  }

  private async probed(file: BlockNode): Promise<string> {
    try {
      return await probeNode(file);
    } catch (error) {
      await this.close(file);
      throw error;
    }
  }

  /** Opens; if that fails, the file goes, too. */
  private async openChecked(given: Given, how: How, file: BlockNode): Promise<BlockNode> {
    try {
      return await this.openDriver(given, how);
    } catch (error) {
      if (this.users.get(file) === 0) this.users.set(file, 1);
      if (this.nodes.get(file.nodeName) === file) await this.close(file);
      throw error;
    }
  }

  private async ref(given: Given | string, how: How): Promise<BlockNode> {
    if (typeof given !== 'string') return this.open(given, how);
    const found = this.nodes.get(given);
    if (found === undefined) throw new ValueError(`Cannot find device='' nor node-name='${given}'`);
    if (how.writable && found.readOnly) throw new Error(`Node '${given}' is read-only`);
    // Its own opening did not know what would be above it.
    if (!how.share && !how.forceShare) found.exclude();
    return found;
  }

  private async openDriver(given: Given, how: How): Promise<BlockNode> {
    const name = given['driver'];
    if (typeof name !== 'string') throw new ValueError("Invalid parameter type for 'driver', expected: string");
    const driver = await findDriver(name);
    const schema = { ...COMMON, ...driver.options };
    for (const option of Object.keys(given)) {
      if (Object.hasOwn(schema, option)) continue;
      const kind = driver.protocol ? 'protocol' : 'format';
      throw new ValueError(`Block ${kind} '${name}' ${driver.protocol ? "doesn't" : 'does not'} support the option '${option}'`);
    }
    const values = readOptions(schema, given) as Common & Given;
    const nodeName = this.nameFor(values['node-name']);
    const own = ownHow(values, how);
    const below: BlockNode[] = [];
    try {
      const node = await this.openLayers(driver, values, own, below);
      node.nodeName = nodeName;
      if (node.filename === '') node.filename = node.file?.filename ?? '';
      node.unmap = own.unmap;
      this.adopt(node, below);
      return node;
    } catch (error) {
      for (const child of below) await this.close(child);
      throw error;
    }
  }

  /** The driver's node, and what the common options put over it. */
  private async openLayers(driver: Driver, values: Common & Given, how: How, below: BlockNode[]): Promise<BlockNode> {
    const node = await driver.open(values, this.opening(how, below));
    if (values['detect-zeroes'] === 'off' || node.readOnly) return node;
    const { ZeroDetector } = await import('./zero-detector.ts');
    node.nodeName = this.nameFor('');
    node.unmap = how.unmap;
    this.adopt(node, below.splice(0));
    below.push(node);
    this.users.set(node, 1);
    return new ZeroDetector(node, values['detect-zeroes'] === 'unmap');
  }

  private opening(how: How, below: BlockNode[]): Opening {
    const use = (node: BlockNode): BlockNode => {
      this.users.set(node, (this.users.get(node) ?? 0) + 1);
      below.push(node);
      return node;
    };
    return {
      how,
      child: async (given, changes = {}, format = false) => {
        const used = { ...how, ...changes };
        const named = typeof given !== 'string' && given['driver'] === undefined && typeof given['filename'] === 'string';
        if (!named || format) return use(await this.ref(given, used));
        const { filename, ...more } = given as Given & { filename: string };
        return use(await this.openDriver({ ...(await fileOptions(filename, null)), ...more }, used));
      },
      image: async (name, format, changes = {}) => use(await this.openImage(name, format, { ...how, ...changes })),
    };
  }

  private adopt(node: BlockNode, below: readonly BlockNode[]): void {
    this.nodes.set(node.nodeName, node);
    this.children.set(node, [...below]);
    this.users.set(node, this.users.get(node) ?? 0);
  }

  private nameFor(wanted: string): string {
    if (wanted === '') return `#block${String(this.unnamed++).padStart(3, '0')}`;
    if (!/^[A-Za-z][A-Za-z0-9\-._]*$/.test(wanted)) throw new ValueError(`Invalid node-name: '${wanted}'`);
    if (this.nodes.has(wanted)) throw new ValueError(`Duplicate nodes with node-name='${wanted}'`);
    return wanted;
  }
}

/** How the file below a format is opened: space that the format gives up is given back. */
export const fileHow = (how: How): How => ({ ...how, unmap: true });

function ownHow(values: Common, how: How): How {
  const readOnly = values['read-only'];
  const { direct, 'no-flush': noFlush } = values.cache;
  const { discard } = values;
  return {
    ...how,
    writable: readOnly === null ? how.writable : how.writable && !readOnly,
    autoReadOnly: values['auto-read-only'] || how.autoReadOnly,
    direct: direct ?? how.direct,
    noFlush: noFlush ?? how.noFlush,
    unmap: discard === null ? how.unmap : discard === 'unmap' || discard === 'on',
    forceShare: values['force-share'] ?? how.forceShare,
  };
}

function checkChain(name: string, { chain }: How): void {
  if (chain.includes(name)) throw new Error(`Backing file '${name}' creates an infinite loop.`);
  if (chain.length >= MAX_DEPTH) throw new Error(`The chain of backing files is longer than ${MAX_DEPTH}`);
}

/** Options of the protocol's node that a name stands for. */
async function fileOptions(name: string, wanted: string | null): Promise<Given> {
  const protocol = wanted ?? protocolOf(name);
  if (protocol === null || protocol === 'file' || protocol === 'host_device') {
    const { pathDriver } = await import('./file.ts');
    const path = name.replace(/^(file|host_device):/, '');
    return { driver: pathDriver(path, protocol), filename: path };
  }
  const driver = await findDriver(protocol);
  return { driver: protocol, ...driver.fromName?.(name) };
}

async function probeNode(file: BlockNode): Promise<string> {
  const head = new Uint8Array(Math.min(PROBE_LENGTH, file.size));
  await file.read(0, head);
  return probe(head, file.filename);
}
