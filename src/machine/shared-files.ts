/** Large files of a configuration, in memory that the machine's thread shares: sent by a message, they would be copied twice. */
import type { MachineConfig, NamedFile } from './config.ts';

function shared(file: NamedFile | null): NamedFile | null {
  if (file === null || file.data.buffer instanceof SharedArrayBuffer) return file;
  const data = new Uint8Array(new SharedArrayBuffer(file.data.length));
  data.set(file.data);
  return { ...file, data };
}

/** @returns the configuration with the kernel and its initrd in shared memory, copied unless they are already */
export const withSharedFiles = (config: MachineConfig): MachineConfig => ({
  ...config,
  kernel: shared(config.kernel),
  initrd: shared(config.initrd),
});
