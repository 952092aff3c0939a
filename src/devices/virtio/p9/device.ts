/** 9P file systems over virtio (the transport's own description; device type 9 of virtio 1.2). */
import type { FileTree } from '../../../host/file-tree.ts';
import type { DeviceState } from '../../../machine/interfaces.ts';
import type { Chain } from '../chain.ts';
import { put16, readBytes } from '../config-space.ts';
import { VirtioDevice, type VirtioParts } from '../device.ts';
import { DEVICE, featureSet } from '../features.ts';
import type { Virtqueue } from '../queue.ts';
import { HEADER, MAX_MESSAGE, P9Server, READ_HEADER, WireError, WRITE_HEADER } from './server.ts';

const FEATURE_MOUNT_TAG = 0;
const QUEUE_SIZE = 128;
const T_WRITE = 118;
const NS_PER_MS = 1_000_000n;
/** Of a tag: what mount takes instead of a device. */
export const MAX_TAG = 255;

export class VirtioP9 extends VirtioDevice {
  readonly deviceType = DEVICE.p9;
  readonly configSize: number;
  private readonly config: Uint8Array;
  private readonly server: P9Server;
  private readonly header = new Uint8Array(HEADER);
  private spare = new Uint8Array(0);

  constructor(parts: VirtioParts, tag: Uint8Array, tree: FileTree) {
    super(parts, [QUEUE_SIZE]);
    this.server = new P9Server(tree, () => BigInt(Date.now()) * NS_PER_MS);
    this.config = new Uint8Array(2 + tag.length);
    this.configSize = this.config.length;
    put16(this.config, 0, tag.length);
    this.config.set(tag, 2);
  }

  override readConfig(offset: number, size: number): number {
    return readBytes(this.config, offset, size);
  }

  protected deviceFeatures(): bigint {
    return featureSet(FEATURE_MOUNT_TAG);
  }

  protected override onReset(): void {
    this.server.reset();
  }

  protected override deviceState() {
    return {
      save: (): DeviceState => ({ version: 1, fields: this.named(() => this.server.save()) }),
      load: ({ fields }: DeviceState): void => this.named(() => this.server.load(fields)),
    };
  }

  private named<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw new Error(`${this.id}: ${(error as Error).message}`);
    }
  }

  protected queueNotified(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
      const written = this.handle(chain);
      if (written < 0) return;
      queue.push(chain, written);
    }
    queue.flush();
  }

  /** @returns bytes of the answer, or -1 when there is none: the driver has broken the rules */
  private handle(chain: Chain): number {
    const { header } = this;
    if (chain.read(0, header) < HEADER || chain.writable < HEADER)
      return this.refuse('a message without a header, or room for one');
    const writes = header[4] === T_WRITE;
    const message = chain.readAll(writes ? WRITE_HEADER : MAX_MESSAGE);
    let where = -1;
    let room: Uint8Array | null = null;
    const payload = {
      room: (length: number): Uint8Array => {
        const most = Math.min(length, Math.max(0, chain.writable - READ_HEADER));
        where = chain.writableAt(READ_HEADER, most);
        room = where >= 0 ? chain.view(where, most) : this.buffer(most);
        return room;
      },
      data: this.dataOf(chain, writes),
    };
    try {
      const answer = this.server.handle(message, payload);
      const total = new DataView(answer.buffer, answer.byteOffset).getUint32(0, true);
      if (answer.length > chain.writable) return this.refuse('an answer that its buffers have no room for');
      chain.write(0, answer);
      const extra = total - answer.length;
      if (room !== null && extra > 0) {
        if (where >= 0) chain.wrote(where, extra);
        else chain.write(answer.length, room, extra);
      }
      return total;
    } catch (error) {
      if (error instanceof WireError) return this.refuse(error.message);
      throw error;
    }
  }

  private dataOf(chain: Chain, writes: boolean): Uint8Array {
    const length = writes ? Math.min(chain.readable - WRITE_HEADER, MAX_MESSAGE) : 0;
    if (length <= 0) return new Uint8Array(0);
    const at = chain.readableAt(WRITE_HEADER, length);
    if (at >= 0) return chain.view(at, length);
    const copy = this.buffer(length);
    chain.read(WRITE_HEADER, copy);
    return copy;
  }

  private buffer(length: number): Uint8Array {
    if (this.spare.length < length) this.spare = new Uint8Array(length);
    return this.spare.subarray(0, length);
  }

  private refuse(why: string): number {
    this.broken(why);
    return -1;
  }
}
