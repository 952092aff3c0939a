/** Makes an image have nothing of its own. */
import { run } from '../task.ts';
import { cutFile } from './resize.ts';
import { putEntry } from './writer.ts';
import type { Qcow2Node } from './node.ts';

/** Entries go back to "not there", unlike after a discard, so that the backing file shows again. */
export async function emptyImage(node: Qcow2Node): Promise<void> {
  const { image, mapping, writer } = node;
  const { clusterSize, entrySize } = image;
  for (let at = 0; at < node.size; ) {
    const l2 = image.l2Offset(mapping.l1Index(at));
    if (l2 === 0) {
      at += mapping.l2Span - (at % mapping.l2Span);
      continue;
    }
    const slice = await run(writer.writableSlice(at));
    const end = Math.min(node.size, at + mapping.leftInSlice(at));
    for (; at < end; at += clusterSize) {
      const entry = mapping.entryAt(at);
      writer.releaseEntry(slice.view, entry, -1);
      putEntry(slice.view, entry, 0, 0);
      if (entrySize === 16) {
        slice.view.setUint32(entry + 8, 0);
        slice.view.setUint32(entry + 12, 0);
      }
    }
    image.l2.changed(slice);
    if (image.releasedMany) await run(image.writeTables());
  }
  await run(image.flush());
  await dropTables(node);
}

/** L2 tables without entries need not be there. */
async function dropTables({ image }: Qcow2Node): Promise<void> {
  for (let i = 0; i < image.header.l1Entries; i++) {
    const offset = image.l2Offset(i);
    if (offset === 0) continue;
    await run(image.setL2Offset(i, 0));
    image.release(offset / image.clusterSize, 1);
  }
  await run(image.flush());
  await cutFile(image);
}
