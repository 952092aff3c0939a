/** The texts of `-help`, `-version` and the lists that options give for "help". */
import { CHARACTER_KINDS } from '../character/spec.ts';
import { featureNames, isSupported, modelNames } from '../isa/x86/system/models.ts';
import type { HelpTopic } from './command-line.ts';
import { NIC_MODELS } from './net-options.ts';
import { NETDEV_KINDS } from '../network/options/netdev.ts';
import { TRACE_CATEGORIES } from './trace.ts';

export const PROGRAM = 'virelay-system-x86_64';

const ROWS: readonly (readonly [string, string])[] = [
  ['-M TYPE[,accel=A][,hpet=on|off]', 'machine type (-M help lists them)'],
  ['-M microvm[,isa-serial=B][,rtc=B][,acpi=B]', 'B is on or off; auto-kernel-cmdline=B, too'],
  ['-cpu MODEL[,+F][,-F][,F=on|off]', 'CPU model and features (-cpu help lists them)'],
  ['-m SIZE', 'memory: MiB, or with a suffix K, M, G, T (default 128)'],
  ['-smp [cpus=]N[,sockets=N][,cores=N][,threads=N]', 'number of CPUs and how they are arranged; more than one needs KVM'],
  ['-accel jit|interp|kvm', 'how guest code is run; tcg is another name of jit; of several (kvm:jit), the first that can be had'],
  ['-accel jit,native=on|off', "whether to make code of the host's processor (x86-64 Linux), not WebAssembly alone"],
  ['-accel kvm,kernel-irqchip=on|split', 'whether all interrupt chips are in the kernel, or the local APICs alone'],
  ['-enable-kvm', 'the same as -accel kvm'],
  ['-icount shift=N|auto[,sleep=on|off]', 'time from counted instructions, 2^N ns each'],
  ['-rtc base=utc|localtime|DATE,clock=host|vm', 'what the real-time clock shows'],
  ['-uuid UUID', "the machine's identity"],
  ['-kernel FILE', 'boot a Linux bzImage or a PVH ELF image'],
  ['-initrd FILE', 'initial RAM disk'],
  ['-append TEXT', 'kernel command line'],
  ['-bios FILE', 'firmware; without -kernel, SeaBIOS as the distribution has it'],
  ['-L FOLDER', 'look for firmware there first'],
  ['-hda FILE, -hdb, -hdc, -hdd', 'raw image of an IDE disk'],
  ['-cdrom FILE', 'image of a CD or DVD'],
  ['-fda FILE, -fdb FILE', 'image of a floppy disk'],
  ['-drive file=F[,if=ide|floppy|pflash|virtio|none][,media=disk|cdrom]', ''],
  ['   [,index=N][,readonly=on][,snapshot=on][,id=ID]', 'a drive'],
  ['-device ide-hd|ide-cd,drive=ID[,bus=ide.N][,unit=N]', ''],
  ['   [,bootindex=N]', 'where a drive with if=none is attached'],
  ['-device ahci,id=ID', 'disk controller; its ports are the buses ID.0 to ID.5'],
  ['-snapshot', 'forget what is written to drives'],
  ['-boot [order=]acdn[,once=LETTERS][,menu=on]', ''],
  ['   [,splash-time=MS][,reboot-timeout=MS]', 'what firmware boots'],
  ['-nic user[,hostfwd=...][,model=M][,mac=MAC]', 'a network and a card on it; -nic none: no network at all'],
  ['-netdev user|tap|stream|dgram|socket|hubport,id=ID', ''],
  ['   [,hostfwd=tcp|udp:[A]:PORT-[A]:PORT][,restrict=on]', ''],
  ['   [,net=A/N][,tftp=FOLDER][,guestfwd=tcp:A:PORT-DEV]', 'a network'],
  ['-device e1000|virtio-net-pci,netdev=ID[,mac=MAC]', 'a card on it'],
  ['-net nic|user|none|...', 'the same, the old way: all on one hub'],
  ['-object filter-dump,id=ID,netdev=ID,file=F', 'a copy of all frames, as tcpdump reads it'],
  ['-vga std|none', 'display adapter (std when firmware runs)'],
  ['-serial DEV', 'next serial port (up to four): see below'],
  ['-chardev null|stdio|file|pty|socket,id=ID[,...]', 'a byte stream for a device, or for -serial chardev:ID'],
  ['-device TYPE[,PROPERTY=VALUE,...]', 'a device (-device help and -device TYPE,help list what there is)'],
  [
    '-fsdev local,id=ID,path=FOLDER,security_model=M[,readonly=on]',
    'a folder for virtio-9p-pci (M: none, passthrough, mapped-xattr, mapped-file)',
  ],
  ['-virtfs local,path=FOLDER,mount_tag=TAG,security_model=M', 'the same, with its device'],
  ['-debugcon DEV', 'debug console at port 0xe9 (-global isa-debugcon.iobase=PORT)'],
  ['-device isa-debug-exit[,iobase=P,iosize=N]', 'port that ends the machine with a status'],
  ['-nographic', 'the serial port (and firmware) on the terminal; Ctrl-A H helps'],
  ['-S', 'do not start the CPU'],
  ['-incoming file:FILE', 'go on from a saved machine, which has had the same options'],
  ['-save-state FILE', 'Ctrl-A S saves the machine there, and exits'],
  ['-no-reboot', 'end instead of rebooting'],
  ['-no-shutdown', 'stay, paused, when the guest powers off'],
  ['-action reboot=reset|shutdown,shutdown=poweroff|pause', 'the same, the newer way'],
  ['-d CATEGORY,...', 'trace to standard error (-d help lists the categories)'],
  ['-D FILE', 'trace to this file'],
  ['-pidfile FILE', "write the process's id there"],
  ['-nodefaults', 'no empty CD and floppy drive, no network card'],
  ['-name, -no-user-config, -k', 'accepted, without effect'],
  ['-display none|curses', 'curses: the display on the terminal; Ctrl-A X ends'],
  ['-monitor none', 'accepted: there is none so far'],
  ['-version, -help', ''],
];

function optionsText(): string {
  const rows = ROWS.map(([option, text]) => `${option.padEnd(44)} ${text}`.trimEnd());
  return [`usage: ${PROGRAM} [options]`, '', ...rows, '', `DEV: ${CHARACTER_KINDS}`].join('\n');
}

function cpuText(): string {
  const features = featureNames().filter(isSupported).join(' ');
  return ['Available CPUs:', ...modelNames().map((name) => `  ${name}`), '', 'Features:', features].join('\n');
}

export function helpText(topic: Exclude<HelpTopic, 'device'>, version: string): string {
  switch (topic) {
    case 'options':
      return optionsText();
    case 'version':
      return `${PROGRAM} (Virelay) version ${version}`;
    case 'machine':
      return [
        'Supported machines are:',
        'pc       PC with an i440FX host bridge (default)',
        'q35      PC with a Q35 host bridge, ICH9 and AHCI',
        'microvm  virtio devices without PCI, for kernels that are started directly',
      ].join('\n');
    case 'cpu':
      return cpuText();
    case 'accel':
      return 'Accelerators supported:\njit (also known as tcg)\ninterp\nkvm';
    case 'netdev':
      return ['Available netdev backend types:', ...NETDEV_KINDS].join('\n');
    case 'nic':
      return ['Supported NIC models:', ...NIC_MODELS].join('\n');
    case 'trace':
      return Object.entries(TRACE_CATEGORIES)
        .map(([name, { text }]) => `${name.padEnd(16)} ${text}`)
        .concat('all              all of these')
        .join('\n');
  }
}
