/** `snapshot=on`: writes go to an image without a name, which is gone with the machine. */
import { openTemporaryFile } from '#host/block-file';
import { FileNode } from './file.ts';
import { type Graph, HOW } from './graph.ts';
import type { BlockNode } from './node.ts';
import { writeNew } from './qcow2/create.ts';

/**
 * @param base a node of the graph, which is only read
 * @returns a node that shows the base, and takes writes
 * @throws Error where the host has no files, or no room
 */
export async function snapshotOver(graph: Graph, base: BlockNode, immediate: boolean, unmap: boolean): Promise<BlockNode> {
  // What will not outlive the machine need not be stable.
  const how = { ...HOW, writable: true, immediate, unmap, noFlush: true, resize: true };
  const file = new FileNode('file', await openTemporaryFile(immediate), how);
  file.unmap = true;
  graph.add(file, '');
  await writeNew(file, {
    size: base.size,
    version: 3,
    clusterSize: 65536,
    refcountBits: 16,
    lazyRefcounts: false,
    compression: 'zlib',
    extendedL2: false,
    backingFile: null,
    backingFormat: null,
    dataFile: null,
    dataFileRaw: false,
    luks: null,
  });
  const node = await graph.open({ driver: 'qcow2', file: file.nodeName, backing: base.nodeName }, how);
  node.filename = base.filename;
  return node;
}
