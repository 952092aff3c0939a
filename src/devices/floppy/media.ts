/** Formats of floppy disks, by the size of their images. */

export type FloppyFormat = {
  tracks: number;
  heads: number;
  /** Sectors of 512 bytes on a track. */
  sectors: number;
  /** Data rates at which it can be read, as the controller's registers number them. */
  rates: readonly number[];
  /** Drive for it, as the CMOS numbers them. */
  drive: number;
};

const SECTOR = 512;
/** Data rates: 500, 300, 250 and 1000 kbit/s. */
const RATE = { high: 0, medium: 1, double: 2, extended: 3 } as const;
/** CMOS drive types. */
const DRIVE = { d360k: 1, d1200k: 2, d1440k: 4, d2880k: 5 } as const;

const table: readonly [number, number, number, readonly number[], number][] = [
  [80, 2, 18, [RATE.high], DRIVE.d1440k],
  [80, 2, 36, [RATE.extended], DRIVE.d2880k],
  [80, 2, 15, [RATE.high], DRIVE.d1200k],
  [80, 2, 9, [RATE.double], DRIVE.d1440k],
  [40, 2, 9, [RATE.medium, RATE.double], DRIVE.d1200k],
  [40, 1, 9, [RATE.medium, RATE.double], DRIVE.d1200k],
  [40, 2, 8, [RATE.medium, RATE.double], DRIVE.d1200k],
  [40, 1, 8, [RATE.medium, RATE.double], DRIVE.d1200k],
  [80, 2, 21, [RATE.high], DRIVE.d1440k],
  [82, 2, 21, [RATE.high], DRIVE.d1440k],
  [80, 2, 20, [RATE.high], DRIVE.d1440k],
];
const FORMATS: readonly FloppyFormat[] = table.map(([tracks, heads, sectors, rates, drive]) => ({
  tracks,
  heads,
  sectors,
  rates,
  drive,
}));

export const capacity = ({ tracks, heads, sectors }: FloppyFormat): number => tracks * heads * sectors * SECTOR;

/** The format of an image; one of no standard size is taken for the smallest that holds it. */
export function formatOf(bytes: number): FloppyFormat {
  const exact = FORMATS.find((format) => capacity(format) === bytes);
  if (exact !== undefined) return exact;
  const fitting = FORMATS.filter((format) => capacity(format) >= bytes).sort((a, b) => capacity(a) - capacity(b));
  return fitting[0] ?? FORMATS[1]!;
}

/** @param bytes size of the medium, or null when there is none @returns the CMOS's drive type */
export function floppyType(bytes: number | null): number {
  return bytes === null ? DRIVE.d1440k : formatOf(bytes).drive;
}
