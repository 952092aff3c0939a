/** `-device`: a device's type and its properties, which the machine's table of types knows. */
import { type DeviceConfig, type DriveConfig, drive } from '../machine/config.ts';
import type { NetworkConfig, NicConfig } from '../machine/network-config.ts';
import type { DriveOption } from './drive-options.ts';
import { parseList, ValueError } from './values.ts';

/** A device, and the option that asked for it. */
export interface DeviceOption {
  readonly text: string;
  readonly config: DeviceConfig;
  /** Place among all cards, for a card: what is known of it when all options have been read comes from there. */
  readonly nic: number | null;
}

/** `TYPE,property=value,...`, or an object as JSON. @throws ValueError */
export function parseDevice(text: string): DeviceConfig {
  if (text.trimStart().startsWith('{')) return parseJson(text);
  const values = Object.fromEntries(parseList(text, 'driver'));
  if (values['driver'] === undefined) throw new ValueError("Parameter 'driver' is missing");
  return values as DeviceConfig;
}

function parseJson(text: string): DeviceConfig {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ValueError('not JSON');
  }
  const { driver } = value as { driver?: unknown };
  if (typeof driver !== 'string') throw new ValueError("Parameter 'driver' is missing");
  return value as DeviceConfig;
}

/** @returns the type that `-device TYPE,help` asks about, or null */
export function helpSubject(text: string): string | null {
  return /^(?:driver=)?([^,]+),(?:help|\?)$/.exec(text)?.[1] ?? null;
}

/** Cards among the devices get what is known of them; other cards are the network's own. */
export function withCards(
  devices: readonly DeviceOption[],
  network: NetworkConfig,
): { devices: readonly DeviceOption[]; network: NetworkConfig } {
  const named = new Set(devices.map(({ nic }) => nic));
  return {
    devices: devices.map((one) => (one.nic === null ? one : { ...one, config: cardOf(network.nics[one.nic]!) })),
    network: { ...network, nics: network.nics.filter((_, i) => !named.has(i)) },
  };
}

function cardOf({ model, id, netdev, mac, properties }: NicConfig): DeviceConfig {
  return { ...properties, driver: model, id, netdev, mac };
}

const CD_DRIVES = ['ide-cd', 'scsi-cd'];
const DISK_DEVICES = ['ide-hd', 'ide-cd', 'scsi-hd', 'scsi-cd'];

/** A machine that is told of its disks has no empty CD drive of its own. */
export function hasDiskDevice(devices: readonly DeviceOption[]): boolean {
  return devices.some(({ config }) => DISK_DEVICES.includes(config.driver));
}

/** Block nodes that devices name become drives, and what devices say of errors becomes their drives'. */
export function withDeviceDrives(
  drives: readonly DriveOption[],
  devices: readonly DeviceOption[],
  nodes: readonly string[],
): DriveOption[] {
  const all = [...drives];
  for (const { text, config } of devices) {
    const name = config['drive'];
    if (typeof name !== 'string') continue;
    let at = all.findIndex((one) => one.id === name);
    if (at < 0 && nodes.includes(name)) {
      const made = drive({ id: name, interface: 'none', node: name });
      at = all.push({ option: '-device', text, id: name, placed: false, config: made }) - 1;
    }
    const one = all[at];
    const cd = CD_DRIVES.includes(config.driver) ? ({ media: 'cdrom', readOnly: true } as const) : {};
    if (one !== undefined) all[at] = { ...one, config: { ...one.config, ...policies(config), ...cd } };
  }
  return all;
}

function policies({ rerror, werror }: DeviceConfig): Partial<DriveConfig> {
  const policy = (value: unknown) => (typeof value === 'string' && value !== 'auto' ? (value as DriveConfig['readError']) : null);
  const [read, write] = [policy(rerror), policy(werror)];
  return { ...(read === null ? {} : { readError: read }), ...(write === null ? {} : { writeError: write }) };
}
