/** Feature bits, device types and status bits that all devices share: virtio 1.2, sections 2.1, 5 and 6. */

/** Device status field (2.1). */
export const STATUS = {
  acknowledge: 1,
  driver: 2,
  driverOk: 4,
  featuresOk: 8,
  needsReset: 64,
  failed: 128,
} as const;

/** Device types (5). */
export const DEVICE = {
  net: 1,
  block: 2,
  console: 3,
  entropy: 4,
  balloon: 5,
  scsi: 8,
  p9: 9,
  input: 18,
  socket: 19,
} as const;

/** Numbers of the feature bits that belong to no device (6). */
export const FEATURE = {
  anyLayout: 27,
  indirectDescriptors: 28,
  eventIndex: 29,
  version1: 32,
  accessPlatform: 33,
  packedRing: 34,
  inOrder: 35,
  orderPlatform: 36,
  ringReset: 40,
} as const;

/** A set of features from the numbers of its bits. */
export function featureSet(...bits: readonly number[]): bigint {
  return bits.reduce((set, bit) => set | (1n << BigInt(bit)), 0n);
}

export const hasFeature = (set: bigint, bit: number): boolean => ((set >> BigInt(bit)) & 1n) !== 0n;

/** A set of features by 32 bits. */
export function half(features: bigint, select: number): number {
  return select > 1 ? 0 : Number((features >> (32n * BigInt(select))) & 0xffffffffn);
}
