/** `virelay-system-x86_64`: one machine in the foreground, driven by QEMU's options. */
import { findFirmware } from '#host';
import { closeSync, openSync, readFileSync, unlinkSync, writeFileSync, writeSync } from 'node:fs';
import { openCharacter } from '../character/open.ts';
import type { CharacterSpec } from '../character/spec.ts';
import { readShared } from '../host/node/bytes.ts';
import { describeError } from '../host/node/errors.ts';
import type { Channel } from '../host/host.ts';
import { ConfigError, Machine, type MachineConfig, type NamedFile } from '../index.ts';
import { BIOS_NAME, VGA_BIOS_NAME } from '../machine/config.ts';
import { type CommandLine, type HelpTopic, OptionError, parseCommandLine } from './command-line.ts';
import { cursesObstacle, showOnTerminal } from './curses.ts';
import { finish, guardTerminal, handleSignals, leave, quitter, report } from './foreground.ts';
import { helpText, PROGRAM } from './help.ts';
import { sourceOf } from './net-options.ts';
import { restoreFrom, saver } from './save-state.ts';
import { connect, drop } from './terminal.ts';
import { prepareStdio } from '../host/node/stdio.ts';

/** Options by the setting of the machine that they fill. */
const OPTION_OF: Partial<Record<keyof MachineConfig, string>> = {
  machine: '-M',
  cpu: '-cpu',
  memory: '-m',
  accel: '-accel',
  smm: '-M',
  icount: '-icount',
  rtc: '-rtc',
  kernel: '-kernel',
  initrd: '-initrd',
  append: '-append',
  bios: '-bios',
  serials: '-serial',
  debugcon: '-debugcon',
  uuid: '-uuid',
  throttleGroups: '-object',
  network: '-netdev',
};

const say = (text: string): void => report(PROGRAM, text);

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}

function readInput(option: string, path: string | null): NamedFile | null {
  if (path === null) return null;
  try {
    return { name: path, data: readShared(path) };
  } catch (error) {
    throw new OptionError(option, path, describeError(error));
  }
}

const inFlash = ({ drives }: CommandLine): boolean => drives.some(({ config }) => config.interface === 'pflash');

/** @param name as after -bios; without one the usual one is looked for, if not in the usual places */
function readFirmware(line: CommandLine, name: string | null): NamedFile | null {
  if (name === null && (line.kernel !== null || line.firmwareFolders.length === 0 || inFlash(line))) return null;
  try {
    const found = findFirmware(name ?? BIOS_NAME, line.firmwareFolders);
    if (found === null) throw new Error('no such file or directory');
    return found;
  } catch (error) {
    throw new OptionError('-bios', name, (error as Error).message);
  }
}

function configure(line: CommandLine): Partial<MachineConfig> {
  return {
    machine: line.machine,
    microvm: line.microvm,
    cpu: line.cpu,
    memory: line.memory,
    ...line.smp,
    ...(line.accel.length > 0 ? { accel: line.accel } : {}),
    kernelIrqchip: line.kernelIrqchip,
    nativeCode: line.nativeCode,
    icount: line.icount,
    rtc: line.rtc,
    kernel: readInput('-kernel', line.kernel),
    initrd: readInput('-initrd', line.initrd),
    append: line.append,
    bios: readFirmware(line, line.bios),
    vga: line.vga,
    vgaBios: line.firmwareFolders.length === 0 ? null : findFirmware(VGA_BIOS_NAME, line.firmwareFolders),
    textOnSerial: line.nographic,
    boot: line.boot,
    drives: line.drives.map(({ config }) => config),
    network: line.network,
    folders: line.folders.map(({ config }) => config),
    chardevs: line.chardevs.map(({ id }) => id),
    devices: line.devices.map(({ config }) => config),
    blockdevs: line.blockdevs.map(({ options }) => options),
    secrets: line.secrets,
    throttleGroups: line.throttleGroups,
    serials: line.serials.map(({ spec }) => (spec.kind === 'none' ? 'none' : 'connected')),
    debugcon: line.debugcon === null ? null : { iobase: line.debugcon.iobase },
    uuid: line.uuid,
    hpet: line.hpet,
    smm: line.smm,
    acpiHotplugBehindBridges: line.acpiHotplugBehindBridges,
    noReboot: line.noReboot,
    noShutdown: line.noShutdown,
    // Nothing runs before everything that could still fail has succeeded.
    startPaused: true,
    trace: line.trace,
  };
}

function optionError(error: ConfigError, line: CommandLine): OptionError {
  const why = error.message.replace(`${error.field}: `, '');
  const place = error.field === 'drives' ? /^drive (\d+): (.*)/.exec(why) : null;
  const one = place === null ? undefined : line.drives[Number(place[1])];
  if (one !== undefined) return new OptionError(one.option, one.text, place![2]!);
  const device = error.field === 'devices' ? /^device (\d+): (.*)/.exec(why) : null;
  if (device !== null) return new OptionError('-device', line.devices[Number(device[1])]!.text, device[2]!);
  const folder = error.field === 'folders' ? /^folder (\d+): (.*)/.exec(why) : null;
  if (folder !== null) {
    const asked = line.folders[Number(folder[1])]!;
    return new OptionError(asked.option, asked.text, folder[2]!);
  }
  const netdev = error.field === 'network' ? /^network "(.*?)": (.*)/.exec(why) : null;
  const asked = netdev === null ? null : sourceOf(line.net, netdev[1]!);
  if (asked !== null) return new OptionError(asked.option, asked.text, netdev![2]!);
  const node = error.field === 'blockdevs' ? /^node (\d+): (.*)/.exec(why) : null;
  if (node !== null) return new OptionError('-blockdev', line.blockdevs[Number(node[1])]!.text, node[2]!);
  const option = OPTION_OF[error.field] ?? `-${error.field}`;
  const values: Partial<Record<keyof MachineConfig, string | null>> = {
    kernel: line.kernel,
    initrd: line.initrd,
    bios: line.bios,
    cpu: line.cpu,
    memory: `${line.memory / 2 ** 20}M`,
  };
  const value = values[error.field] ?? null;
  const named = value === null ? why : why.replace(`${value}: `, '');
  return new OptionError(option, value, named);
}

async function create(line: CommandLine): Promise<Machine> {
  const config = configure(line);
  try {
    const made = line.incoming === null ? Machine.create(config) : restoreFrom(line.incoming, config);
    // The machine's thread has much to do now, and this one nothing.
    prepareStdio();
    return await made;
  } catch (error) {
    throw error instanceof ConfigError ? optionError(error, line) : error;
  }
}

async function open(option: string, text: string, spec: CharacterSpec): Promise<Channel> {
  try {
    const { channel, note } = await openCharacter(spec, (address) =>
      say(`-${option} ${text}: waiting for a connection on ${address}`),
    );
    if (note !== null) say(`-${option} ${text}: ${note}`);
    return channel;
  } catch (error) {
    throw new OptionError(`-${option}`, text, (error as Error).message);
  }
}

/** @returns what is to be closed, and what is over when all output has been passed on */
async function connectPorts(machine: Machine, line: CommandLine, exit: () => void, save: (() => void) | null) {
  const ports = line.serials.map((serial, i) => ({
    ...serial,
    option: 'serial',
    port: machine.serial[i]!,
  }));
  if (line.debugcon !== null && machine.debugcon !== null) {
    ports.push({ ...line.debugcon, option: 'debugcon', port: machine.debugcon });
  }
  for (const { id, text, spec } of line.chardevs) {
    ports.push({ text, spec, option: 'chardev', port: machine.chardevs.get(id)! });
  }
  // The terminal comes last: its mode must not change if another port cannot be opened.
  ports.sort((a, b) => Number(a.spec.kind === 'stdio') - Number(b.spec.kind === 'stdio'));
  const channels: Channel[] = [];
  const outputs: Promise<void>[] = [];
  for (const { option, text, spec, port } of ports) {
    if (spec.kind === 'none' || spec.kind === 'null') {
      drop(port);
      continue;
    }
    const channel = await open(option, text, spec);
    channels.push(channel);
    const mux = spec.kind === 'stdio' && spec.mux;
    outputs.push(connect(port, channel, mux ? { exit, save, say } : null));
  }
  return { channels, outputs };
}

function traceTo(machine: Machine, path: string | null): void {
  let fd = 2;
  try {
    if (path !== null) fd = openSync(path, 'w');
  } catch (error) {
    throw new OptionError('-D', path, describeError(error));
  }
  machine.on('trace', (lines) => writeSync(fd, `${lines.join('\n')}\n`));
  if (fd !== 2) process.once('exit', () => closeSync(fd));
}

function writePidFile(path: string | null): void {
  if (path === null) return;
  try {
    writeFileSync(path, `${process.pid}\n`);
  } catch (error) {
    throw new OptionError('-pidfile', path, describeError(error));
  }
  process.once('exit', () => unlinkSync(path));
}

async function run(line: CommandLine): Promise<number> {
  const obstacle = line.curses ? cursesObstacle() : null;
  if (obstacle !== null) throw new OptionError('-display', 'curses', obstacle);
  for (const warning of line.warnings) say(`warning: ${warning}`);
  const machine = await create(line);
  // What is known of the command line already has been said with the option's name.
  const warn = (text: string): void => {
    if (!line.warnings.some((said) => said.endsWith(text))) say(text.includes('\n') ? text : `warning: ${text}`);
  };
  machine.warnings.forEach(warn);
  machine.on('warning', warn);
  const quit = quitter(machine);
  traceTo(machine, line.traceFile);
  writePidFile(line.pidFile);
  handleSignals(PROGRAM, quit);
  const save = line.saveState === null ? null : saver(machine, line.saveState, quit, say);
  const { channels, outputs } = await connectPorts(machine, line, quit, save);
  if (line.curses) showOnTerminal(machine, quit, save);
  if (!line.startPaused && machine.wasRunning) await machine.start();
  return finish(machine, channels, outputs);
}

/** The table of devices is read only when it is asked about. */
async function help(topic: HelpTopic, subject: string | null): Promise<string> {
  if (topic !== 'device') return helpText(topic, version());
  const types = await import('../machine/device-types.ts');
  try {
    return await (subject === null ? types.listDeviceTypes() : types.describeDeviceType(subject));
  } catch (error) {
    throw new OptionError('-device', `${subject},help`, (error as Error).message);
  }
}

export async function main(args: readonly string[]): Promise<void> {
  guardTerminal(PROGRAM);
  try {
    const line = parseCommandLine(args);
    if (line.help === null) leave(await run(line));
    writeSync(1, `${await help(line.help, line.helpSubject)}\n`);
    leave(0);
  } catch (error) {
    say((error as Error).message.split('\n')[0]!);
    leave(1);
  }
}
