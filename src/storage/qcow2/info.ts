/** What there is to say of an image. */
import type { NodeInfo } from '../node.ts';
import { INCOMPATIBLE } from './header.ts';
import type { Qcow2Node } from './node.ts';
import { readSnapshots } from './snapshots.ts';

export async function infoOf(node: Qcow2Node): Promise<NodeInfo> {
  const { header } = node.image;
  const has = (bit: number): boolean => (header.incompatible & bit) !== 0;
  const data: Record<string, unknown> = { compat: header.version === 2 ? '0.10' : '1.1' };
  data['compression-type'] = header.compression;
  if (header.version === 3) data['lazy-refcounts'] = (header.compatible & 1) !== 0;
  if (header.bitmaps !== null) {
    const { listBitmaps } = await import('./bitmaps.ts');
    data['bitmaps'] = (await listBitmaps(node.image)).map(({ name, granularity, inUse, auto }) => ({
      flags: [...(inUse ? ['in-use'] : []), ...(auto ? ['auto'] : [])],
      name,
      granularity,
    }));
  }
  data['refcount-bits'] = 2 ** header.refcountOrder;
  if (node.encryptionInfo !== null) data['encrypt'] = node.encryptionInfo;
  if (header.version === 3) {
    if (has(INCOMPATIBLE.dataFile)) {
      data['data-file'] = header.dataFile;
      data['data-file-raw'] = (header.autoclear & 2) !== 0;
    }
    data['corrupt'] = has(INCOMPATIBLE.corrupt);
    data['extended-l2'] = has(INCOMPATIBLE.extendedL2);
  }
  return {
    clusterSize: node.image.clusterSize,
    encrypted: header.encryption !== 0,
    dirty: has(INCOMPATIBLE.dirty),
    specific: { type: 'qcow2', data },
    snapshots: await readSnapshots(node.image),
  };
}
