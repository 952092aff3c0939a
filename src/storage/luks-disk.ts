/** The driver `luks`: an encrypted disk by itself, in LUKS format version 1. */
import type { SectorCipher } from '../host/host.ts';
import type { Completion } from '../machine/interfaces.ts';
import type { Creation } from './create.ts';
import { driver } from './driver.ts';
import { openLuks, luksHeaderBytes, luksInfo, parseLuks } from './luks.ts';
import { luksFromOptions } from './luks-create.ts';
import { BlockNode, type NodeInfo, readBytes } from './node.ts';
import { node, optional, type Schema, text } from './schema.ts';
import { run, type Task } from './task.ts';

const OPTIONS = { file: node, 'key-secret': optional(text, null) } satisfies Schema;
const HEADER_BYTES = 592;
const SECTOR = 512;
/** Encrypted at a time: what is copied for it stays small. */
const PART = 2 ** 20;

class LuksNode extends BlockNode {
  readonly driver = 'luks';
  private readonly below: BlockNode;
  private readonly cipher: SectorCipher | null;
  private readonly payload: number;
  private readonly facts: Record<string, unknown>;

  constructor(below: BlockNode, cipher: SectorCipher | null, payload: number, facts: Record<string, unknown>, readOnly: boolean) {
    super();
    this.below = below;
    this.cipher = cipher;
    this.payload = payload;
    this.facts = facts;
    this.readOnly = readOnly;
  }

  override get file(): BlockNode {
    return this.below;
  }

  get size(): number {
    return Math.max(0, this.below.size - this.payload);
  }

  read(offset: number, into: Uint8Array): Completion {
    const { cipher } = this;
    if (cipher === null) throw new Error('the image is encrypted, and there is no key');
    const reading = this.below.read(this.payload + offset, into);
    const decrypt = (): void => cipher.decrypt(into, offset / SECTOR);
    return reading === undefined ? decrypt() : reading.then(decrypt);
  }

  write(offset: number, from: Uint8Array): Completion {
    if (this.readOnly) throw new Error('the image is read-only');
    return run(this.writeTask(offset, from));
  }

  private *writeTask(offset: number, from: Uint8Array): Task<void> {
    if (this.cipher === null) throw new Error('the image is encrypted, and there is no key');
    for (let at = 0; at < from.length; at += PART) {
      const part = from.slice(at, at + PART);
      this.cipher.encrypt(part, (offset + at) / SECTOR);
      const writing = this.below.write(this.payload + offset + at, part);
      if (writing !== undefined) yield writing;
    }
  }

  flush(): Completion {
    return this.below.flush();
  }

  override resize(size: number, preallocation: string) {
    return this.below.resize(this.payload + size, preallocation);
  }

  override status(_offset: number, length: number) {
    return { length, data: true, zero: false, allocated: true, offset: null, file: null };
  }

  override info(): NodeInfo {
    return { encrypted: true, specific: { type: 'luks', data: this.facts } };
  }

  close(): void {
    // Nothing of its own.
  }
}

export const luksDriver = driver({
  name: 'luks',
  protocol: false,
  options: OPTIONS,
  open: async (values, { how, child }) => {
    const below = await child(values.file, { share: false, resize: true });
    const header = parseLuks(await readBytes(below, 0, Math.min(HEADER_BYTES, below.size)));
    const bytes = await readBytes(below, 0, luksHeaderBytes(header));
    const readOnly = !how.writable || below.readOnly;
    const id = values['key-secret'];
    if (id === null) {
      if (!how.noBacking) throw new Error("Parameter 'key-secret' is required for cipher");
      return new LuksNode(below, null, header.payloadOffset, luksInfo(bytes, null), readOnly);
    }
    const secret = how.secrets.get(id);
    if (secret === undefined) throw new Error(`No secret with id '${id}'`);
    return new LuksNode(below, openLuks(bytes, secret).cipher, header.payloadOffset, luksInfo(bytes, null), readOnly);
  },
});

export const luksCreation: Creation = {
  options: [
    { name: 'size', type: 'size', help: 'Virtual disk size' },
    { name: 'key-secret', type: 'str', help: 'ID of the secret that provides the keyslot unlock password' },
    { name: 'cipher-alg', type: 'str', help: 'Name of encryption cipher algorithm' },
    { name: 'cipher-mode', type: 'str', help: 'Name of encryption cipher mode' },
    { name: 'ivgen-alg', type: 'str', help: 'Name of IV generator algorithm' },
    { name: 'ivgen-hash-alg', type: 'str', help: 'Name of IV generator hash algorithm' },
    { name: 'hash-alg', type: 'str', help: 'Name of encryption hash algorithm' },
    { name: 'iter-time', type: 'num', help: 'Time to spend in PBKDF in milliseconds' },
  ],
  create: async (values, target) => {
    const header = luksFromOptions(values, '', target.secrets);
    const file = await target.newFile(target.filename);
    try {
      await file.resize(header.length + Math.ceil(values.size / SECTOR) * SECTOR, 'off');
      await file.write(0, header);
    } finally {
      await file.close();
    }
  },
};
