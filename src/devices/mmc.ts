/** Answers that describe a CD-ROM drive and a data disc with one track: MMC-5 (T10/1675D). */

export const CD_SECTOR = 2048;
/** Most sectors that a CD has; larger images are taken for DVDs. */
const CD_LIMIT = 80 * 60 * 75;
const PROFILE = { cd: 0x08, dvd: 0x10 } as const;

function text(value: string, length: number): number[] {
  return [...value.padEnd(length, ' ')].map((character) => character.charCodeAt(0));
}

/** SPC-3, 6.4.2: removable CD/DVD device. */
export const INQUIRY = Uint8Array.from([
  0x05,
  0x80,
  0x00,
  0x21,
  31,
  0,
  0,
  0,
  ...text('VIRELAY', 8),
  ...text('VIRELAY DVD-ROM', 16),
  ...text('1.0', 4),
]);

/** MSF addresses count the two seconds before the first sector. */
function address(lba: number, minutes: boolean): number[] {
  if (!minutes) return [lba >>> 24, lba >>> 16, lba >>> 8, lba].map((value) => value & 0xff);
  const frame = lba + 150;
  return [0, Math.floor(frame / 75 / 60) & 0xff, Math.floor(frame / 75) % 60, frame % 75];
}

function withLength(body: readonly number[]): Uint8Array {
  return Uint8Array.of(body.length >> 8, body.length & 0xff, ...body);
}

/** Control field: a data track, copying prohibited. */
const DATA_TRACK = 0x14;
const LEAD_OUT = 0xaa;

/**
 * @param format 0 tracks, 1 sessions, 2 everything as on the disc
 * @param start first track wanted
 * @returns null when that cannot be had
 */
export function readToc(format: number, minutes: boolean, start: number, sectors: number): Uint8Array | null {
  switch (format) {
    case 0: {
      if (start > 1 && start !== LEAD_OUT) return null;
      const track = start <= 1 ? [0, DATA_TRACK, 1, 0, ...address(0, minutes)] : [];
      return withLength([1, 1, ...track, 0, 0x16, LEAD_OUT, 0, ...address(sectors, minutes)]);
    }
    case 1:
      return withLength([1, 1, 0, DATA_TRACK, 1, 0, ...address(0, minutes)]);
    case 2:
      return withLength([1, 1, ...rawToc(sectors)]);
    default:
      return null;
  }
}

/** Points A0h to A2h (first track, last track, lead-out) and the track. */
function rawToc(sectors: number): number[] {
  const entry = (point: number, place: readonly number[]): number[] => [1, DATA_TRACK, 0, point, 0, 0, 0, 0, ...place.slice(1)];
  return [
    ...entry(0xa0, [0, 1, 0, 0]),
    ...entry(0xa1, [0, 1, 0, 0]),
    ...entry(0xa2, address(sectors, true)),
    ...entry(1, address(0, true)),
  ];
}

/** 6.22: a finished disc with one session. */
export function discInformation(): Uint8Array {
  const data = new Uint8Array(34);
  data.set([0, 32, 0x0e, 1, 1, 1, 1, 0x20, 0]);
  return data;
}

/** 5.3: features; `all` asks for all, those in force, or one of them. */
export function getConfiguration(all: number, from: number, sectors: number): Uint8Array {
  const current = sectors === 0 ? 0 : sectors > CD_LIMIT ? PROFILE.dvd : PROFILE.cd;
  const profile = (code: number): number[] => [0, code, current === code ? 1 : 0, 0];
  const features: { code: number; body: number[]; active: boolean }[] = [
    { code: 0x0000, active: true, body: [...profile(PROFILE.dvd), ...profile(PROFILE.cd)] },
    // Core: ATAPI; DBE.
    { code: 0x0001, active: true, body: [0, 0, 0, 2, 1, 0, 0, 0] },
    // Morphing.
    { code: 0x0002, active: true, body: [2, 0, 0, 0] },
    // Removable medium: a tray that can be locked and ejected.
    { code: 0x0003, active: true, body: [0x29, 0, 0, 0] },
    // Random readable: 2048-byte blocks, one at a time.
    { code: 0x0010, active: sectors !== 0, body: [0, 0, 8, 0, 0, 1, 0, 0] },
    { code: 0x001e, active: current === PROFILE.cd, body: [0, 0, 0, 0] },
    { code: 0x001f, active: current === PROFILE.dvd, body: [] },
  ];
  const chosen = features.filter(({ code, active }) => (all === 2 ? code === from : code >= from && (all === 0 || active)));
  const body = chosen.flatMap(({ code, body: data, active }) => {
    const version = code === 0x0001 ? 2 : code === 0x0002 ? 1 : 0;
    const persistent = code <= 0x0003 ? 2 : 0;
    return [code >> 8, code & 0xff, (version << 2) | persistent | (active ? 1 : 0), data.length, ...data];
  });
  const length = body.length + 4;
  return Uint8Array.of(0, 0, length >> 8, length & 0xff, 0, 0, 0, current, ...body);
}

/** @returns the pages asked for (3Fh: all of them), or null when there is no such page */
export function modePages(page: number, locked: boolean): Uint8Array | null {
  const pages: readonly number[][] = [
    // Error recovery.
    [0x01, 6, 0, 5, 0, 0, 0, 0],
    // CD audio control.
    [0x0e, 14, 4, 0, 0, 0, 0, 75, 1, 255, 2, 255, 0, 0, 0, 0],
    // Capabilities: reads CD-R, CD-RW and DVD; a tray that can be locked and ejected; 706 KB/s,
    // no volume levels, 512 KiB of buffer.
    [0x2a, 18, 0x3b, 0, 0x71, 0x60, locked ? 0x2b : 0x29, 0, 706 >> 8, 706 & 0xff, 0, 2, 2, 0, 706 >> 8, 706 & 0xff, 0, 0, 0, 0],
  ];
  if (page === 0x3f) return Uint8Array.from(pages.flat());
  const data = pages.find(([code]) => code === page);
  return data === undefined ? null : Uint8Array.from(data);
}
