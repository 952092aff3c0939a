/** All drivers by name. Their code is loaded when it is needed. */
import type { Driver } from './driver.ts';

type Load = () => Promise<{ readonly default: Driver }>;

const DRIVERS: Record<string, Load> = {
  file: () => import('./file.ts').then(({ fileDriver }) => ({ default: fileDriver })),
  host_device: () => import('./file.ts').then(({ hostDeviceDriver }) => ({ default: hostDeviceDriver })),
  raw: () => import('./raw.ts').then(({ rawDriver }) => ({ default: rawDriver })),
  'null-co': () => import('./null.ts').then(({ nullCoDriver }) => ({ default: nullCoDriver })),
  'null-aio': () => import('./null.ts').then(({ nullAioDriver }) => ({ default: nullAioDriver })),
  memory: () => import('./memory.ts').then(({ memoryDriver }) => ({ default: memoryDriver })),
  bochs: () => import('./bochs.ts').then(({ bochsDriver }) => ({ default: bochsDriver })),
  cloop: () => import('./cloop.ts').then(({ cloopDriver }) => ({ default: cloopDriver })),
  dmg: () => import('./dmg.ts').then(({ dmgDriver }) => ({ default: dmgDriver })),
  nbd: () => import('./nbd-client.ts').then(({ nbdDriver }) => ({ default: nbdDriver })),
  http: () => import('./http.ts').then(({ httpDriver }) => ({ default: httpDriver })),
  https: () => import('./http.ts').then(({ httpsDriver }) => ({ default: httpsDriver })),
  throttle: () => import('./throttle.ts').then(({ throttleDriver }) => ({ default: throttleDriver })),
  'copy-on-read': () => import('./copy-on-read.ts').then(({ copyOnReadDriver }) => ({ default: copyOnReadDriver })),
  blkdebug: () => import('./blkdebug.ts').then(({ blkdebugDriver }) => ({ default: blkdebugDriver })),
  luks: () => import('./luks-disk.ts').then(({ luksDriver }) => ({ default: luksDriver })),
  vhdx: () => import('./vhdx.ts').then(({ vhdxDriver }) => ({ default: vhdxDriver })),
  parallels: () => import('./parallels.ts').then(({ parallelsDriver }) => ({ default: parallelsDriver })),
  qed: () => import('./qed.ts').then(({ qedDriver }) => ({ default: qedDriver })),
  vdi: () => import('./vdi.ts').then(({ vdiDriver }) => ({ default: vdiDriver })),
  vmdk: () => import('./vmdk-disk.ts').then(({ vmdkDriver }) => ({ default: vmdkDriver })),
  vpc: () => import('./vpc.ts').then(({ vpcDriver }) => ({ default: vpcDriver })),
  qcow2: () => import('./qcow2/driver.ts').then(({ qcow2Driver }) => ({ default: qcow2Driver })),
};

export const DRIVER_NAMES: readonly string[] = Object.keys(DRIVERS).sort();

/** @throws Error when there is none of that name */
export async function findDriver(name: string): Promise<Driver> {
  if (!Object.hasOwn(DRIVERS, name)) throw new Error(`Unknown driver '${name}'`);
  return (await DRIVERS[name]!()).default;
}

/** Beginnings of names that are not paths. */
const PROTOCOLS: Record<string, string> = {
  file: 'file',
  host_device: 'host_device',
  'null-co': 'null-co',
  'null-aio': 'null-aio',
  nbd: 'nbd',
  'nbd+tcp': 'nbd',
  'nbd+unix': 'nbd',
  http: 'http',
  https: 'https',
};

/** @returns the driver that a name like `nbd://…` asks for, null for a path. @throws Error when it is not known */
export function protocolOf(name: string): string | null {
  const match = /^([^/:]*):/.exec(name);
  if (match === null) return null;
  const prefix = match[1]!;
  if (!Object.hasOwn(PROTOCOLS, prefix)) throw new Error(`Unknown protocol '${prefix}'`);
  return PROTOCOLS[prefix]!;
}
