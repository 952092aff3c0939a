/** Machines under the host's KVM with a firmware of a few instructions. */
import { Machine, type MachineConfig } from 'virelay';

export const MIB = 2 ** 20;

/** @param code at the place where processors begin, which is the end of the image: 16 bytes, or a jump to more */
export function firmwareOf(code: readonly number[]): { name: string; data: Uint8Array } {
  const data = new Uint8Array(0x1_0000).fill(0xf4);
  if (code.length > 16) data.set([0xe9, 0x0d, 0xf0], 0xfff0);
  data.set(code, code.length > 16 ? 0xf000 : 0xfff0);
  return { name: 'firmware', data };
}

/** Is not started yet. */
export function machineOf(code: readonly number[], more: Partial<MachineConfig> = {}): Promise<Machine> {
  const bios = firmwareOf(code);
  return Machine.create({
    ...{ accel: 'kvm', memory: 8 * MIB, bios, serials: [], startPaused: true, noReboot: true },
    ...more,
  });
}
