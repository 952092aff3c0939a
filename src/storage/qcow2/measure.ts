/** What a fully allocated image takes. */

/** @returns bytes of the file, tables included */
export function qcow2Size(size: number, clusterSize: number, refcountBits: number, extended: boolean): number {
  const clusters = Math.ceil(size / clusterSize);
  const entry = extended ? 16 : 8;
  const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to;
  const l2 = roundUp(clusters, clusterSize / entry) * entry;
  const l1 = roundUp(l2 / clusterSize, clusterSize / 8) * 8;
  const others = clusters + 1 + (l2 + l1) / clusterSize;
  const perBlock = (clusterSize * 8) / refcountBits;
  let blocks = 0;
  let tables = 0;
  for (;;) {
    const total = others + blocks + tables;
    const neededBlocks = Math.ceil(total / perBlock);
    const neededTables = Math.ceil((neededBlocks * 8) / clusterSize);
    if (neededBlocks === blocks && neededTables === tables) return total * clusterSize;
    blocks = neededBlocks;
    tables = neededTables;
  }
}
