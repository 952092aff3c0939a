/** Gives every PCI function its addresses and every bus its number, as firmware does. */
import { PciBridge } from '../devices/pci-bridge.ts';
import { PCI, PCI_COMMAND, type PciBus, type PciDevice } from '../devices/pci.ts';

/** Below that the board has ports of its own. */
const FIRST_PORT = 0xc000;
/** Where 32-bit memory for devices begins unless RAM reaches further. */
const FIRST_MEMORY = 0xe0000000;
/** Windows of bridges (PCI-to-PCI Bridge Architecture 1.2, 3.2.5) come in these steps, bytes. */
const PORT_STEP = 0x1000;
const MEMORY_STEP = 0x100000;
const PORTS_END = 0x10000;
/** Room behind each bridge for what may be plugged in later, at least, as long as there is any. */
const PORT_ROOM = 0x1000;
const MEMORY_ROOM = 0x200000;
const WINDOW = { numbers: 0x18, ports: 0x1c, memory: 0x20, prefetchable: 0x24 } as const;
const HEADER_BARS = [6, 2] as const;
const LAST_BUS = 255;

/** @returns interrupt line of a function's pin, 0 to 3, on a bus */
export type PinWiring = (devfn: number, pin: number) => number;

type Free = { memory: number; ports: number; lastBus: number };

const upTo = (value: number, step: number): number => Math.ceil(value / step) * step;

/** @param lowRam end of RAM below 4 GiB */
export function assignResources(root: PciBus, lowRam: number, wiring: PinWiring): void {
  assignBus(root, 0, { memory: Math.max(lowRam, FIRST_MEMORY), ports: FIRST_PORT, lastBus: 0 }, wiring);
}

function assignBus(bus: PciBus, number: number, free: Free, wiring: PinWiring): void {
  for (const device of bus.all()) {
    let command = assignBars(device, free);
    if (device instanceof PciBridge) {
      assignBridge(device, number, free, wiring);
      command |= PCI_COMMAND.io | PCI_COMMAND.memory | PCI_COMMAND.master;
    }
    const pin = device.config[PCI.interruptPin]!;
    if (pin >= 1 && pin <= 4) device.configWrite(PCI.interruptLine, 1, wiring(device.devfn, pin - 1));
    device.configWrite(PCI.command, 2, device.configRead(PCI.command, 2) | command);
  }
}

/** Sizes each base address register the way software does. @returns what the function is to decode */
function assignBars(device: PciDevice, free: Free): number {
  let command = 0;
  const count = HEADER_BARS[(device.config[PCI.headerType]! & 1) as 0 | 1];
  for (let index = 0; index < count; index++) {
    const at = PCI.bar0 + 4 * index;
    device.configWrite(at, 4, 0xffffffff);
    const mask = device.configRead(at, 4);
    device.configWrite(at, 4, 0);
    if (mask === 0) continue;
    const isIo = (mask & 1) !== 0;
    const size = (~(mask & (isIo ? ~3 : ~15)) + 1) >>> 0;
    if (isIo) {
      free.ports = upTo(free.ports, size);
      device.configWrite(at, 4, free.ports);
      free.ports += size;
      command |= PCI_COMMAND.io;
    } else if (size !== 0) {
      free.memory = upTo(free.memory, size);
      device.configWrite(at, 4, free.memory);
      free.memory += size;
      command |= PCI_COMMAND.memory;
    }
    if ((mask & 7) === 4) index++;
  }
  return command;
}

/** Everything behind a bridge lies in one range of memory, and one of ports. */
function assignBridge(bridge: PciBridge, primary: number, free: Free, wiring: PinWiring): void {
  const secondary = ++free.lastBus;
  bridge.configWrite(WINDOW.numbers, 2, primary | (secondary << 8));
  bridge.configWrite(WINDOW.numbers + 2, 1, LAST_BUS);
  free.ports = upTo(free.ports, PORT_STEP);
  free.memory = upTo(free.memory, MEMORY_STEP);
  const { ports, memory } = free;
  // Pins come out at the bridge's own, moved on by the slot.
  assignBus(bridge.secondary, secondary, free, (devfn, pin) => wiring(bridge.devfn, (pin + (devfn >> 3)) & 3));
  const room = ports + PORT_ROOM <= PORTS_END ? PORT_ROOM : 0;
  free.ports = upTo(Math.max(free.ports, ports + room), PORT_STEP);
  free.memory = upTo(Math.max(free.memory, memory + MEMORY_ROOM), MEMORY_STEP);
  bridge.configWrite(WINDOW.numbers + 2, 1, free.lastBus);
  const last = free.ports - 1;
  // None: it ends before it begins.
  bridge.configWrite(WINDOW.ports, 2, last < ports ? 0x00f0 : (ports >> 8) | (last & 0xf000));
  bridge.configWrite(WINDOW.memory, 4, ((memory >>> 16) | (((free.memory - 1) >>> 16) * 0x10000)) >>> 0);
  bridge.configWrite(WINDOW.prefetchable, 4, 0x0000fff0);
}
