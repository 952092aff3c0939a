/** A copy of all frames in a file that tcpdump and Wireshark read (pcap, version 2.4). */
import type { HostNetwork } from '../host/network.ts';

const MAGIC = 0xa1b2_c3d4;
const LINK_ETHERNET = 1;
const FILE_HEADER = 24;
const RECORD_HEADER = 16;
/** Records that are collected before they are written. */
const BUFFER = 1 << 16;

export class FrameDump {
  private readonly file: ReturnType<HostNetwork['appendFile']>;
  private readonly maxLength: number;
  private readonly buffer = new Uint8Array(BUFFER);
  private readonly view = new DataView(this.buffer.buffer);
  private used = 0;
  private flushQueued = false;

  /** @param maxLength bytes of each frame that are kept  @throws Error, one line, when the file cannot be written */
  constructor(host: HostNetwork, path: string, maxLength: number) {
    this.file = host.appendFile(path);
    this.maxLength = maxLength;
    const header = new DataView(new ArrayBuffer(FILE_HEADER));
    header.setUint32(0, MAGIC, true);
    header.setUint16(4, 2, true);
    header.setUint16(6, 4, true);
    header.setUint32(16, maxLength, true);
    header.setUint32(20, LINK_ETHERNET, true);
    this.file.write(new Uint8Array(header.buffer));
  }

  add(frame: Uint8Array): void {
    const kept = Math.min(frame.length, this.maxLength);
    if (this.used + RECORD_HEADER + kept > BUFFER) this.flush();
    const { view, used } = this;
    const now = performance.timeOrigin + performance.now();
    view.setUint32(used, Math.floor(now / 1000), true);
    view.setUint32(used + 4, Math.floor((now % 1000) * 1000), true);
    view.setUint32(used + 8, kept, true);
    view.setUint32(used + 12, frame.length, true);
    this.used += RECORD_HEADER;
    if (this.used + kept > BUFFER) {
      this.flush();
      this.file.write(frame.subarray(0, kept));
    } else {
      this.buffer.set(frame.subarray(0, kept), this.used);
      this.used += kept;
    }
    if (this.flushQueued) return;
    this.flushQueued = true;
    queueMicrotask(() => {
      this.flushQueued = false;
      this.flush();
    });
  }

  close(): void {
    this.flush();
    this.file.close();
  }

  private flush(): void {
    if (this.used > 0) this.file.write(this.buffer.subarray(0, this.used));
    this.used = 0;
  }
}
