/** Tells formats by their first bytes. */

/** Bytes that are looked at. */
export const PROBE_LENGTH = 2048;
const UNSPECIFIC = 1;
const WEAK = 2;
const CERTAIN = 100;

const startsWith = (head: Uint8Array, text: string, at = 0): boolean => {
  for (let i = 0; i < text.length; i++) if (head[at + i] !== text.charCodeAt(i)) return false;
  return true;
};
const word = (head: Uint8Array, at: number): number =>
  head.length < at + 4 ? -1 : new DataView(head.buffer, head.byteOffset).getUint32(at);

type Test = (head: Uint8Array, name: string) => number;
const magic =
  (text: string, at = 0): Test =>
  (head) =>
    startsWith(head, text, at) ? CERTAIN : 0;

const FORMATS: Record<string, Test> = {
  qcow2: (head) => (startsWith(head, 'QFI\xfb') && word(head, 4) >= 2 ? CERTAIN : 0),
  vmdk: (head) => (startsWith(head, 'KDMV') || startsWith(head, 'COWD') || isDescriptor(head) ? CERTAIN : 0),
  vdi: magic('\x7f\x10\xda\xbe', 64),
  vhdx: magic('vhdxfile'),
  vpc: magic('conectix'),
  qed: magic('QED\0'),
  parallels: (head) => (/^With(outFreeSpace|ouFreSpacExt)/.test(latin(head, 16)) && word(head, 16) === 0x02000000 ? CERTAIN : 0),
  luks: (head) => (startsWith(head, 'LUKS\xba\xbe') && head[6] === 0 && head[7] === 1 ? CERTAIN : 0),
  bochs: magic('Bochs Virtual HD Image\0'),
  cloop: (head) =>
    startsWith(head, '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n') ? WEAK : 0,
  dmg: (_head, name) => (name.endsWith('.dmg') ? WEAK : 0),
  raw: () => UNSPECIFIC,
};

const latin = (bytes: Uint8Array, length: number): string => String.fromCharCode(...bytes.subarray(0, length));

/** A text of comments and blank lines, then the version: a VMDK's descriptor. */
function isDescriptor(head: Uint8Array): boolean {
  if (head[0] !== 0x23 && head[0] !== 0x0a && head[0] !== 0x0d && head[0] !== 0x76) return false;
  return /^(?:#[^\n]*\n|[ \r]*\n)*version=[123]\r?\n/.test(latin(head, Math.min(head.length, PROBE_LENGTH)));
}

/** @returns the format's name; `raw` when it is none that is known */
export function probe(head: Uint8Array, name: string): string {
  let best = 'raw';
  let most = 0;
  for (const [format, test] of Object.entries(FORMATS)) {
    const score = test(head, name);
    if (score > most) {
      most = score;
      best = format;
    }
  }
  return best;
}
