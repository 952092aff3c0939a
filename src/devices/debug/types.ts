/** `isa-debug-exit`. */
import { deviceType, uint } from '../device-type.ts';
import { DebugExit } from './debug.ts';

export const ISA_DEBUG_EXIT = deviceType({
  name: 'isa-debug-exit',
  category: 'misc',
  bus: 'ISA',
  properties: { iobase: uint(32, 0x501), iosize: uint(32, 2) },
  create({ iobase, iosize }, { id, ports, exit }) {
    if (![1, 2, 4].includes(iosize)) throw new Error(`iosize ${iosize} is not one of 1, 2, 4`);
    if (iobase + iosize > 0x10000) throw new Error(`iobase ${iobase} is not a port number`);
    const device = new DebugExit(exit, id);
    ports.register(iobase, iosize, device.ports, id);
    return device;
  },
});
