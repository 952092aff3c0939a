/** The library. */
export { Machine } from './machine/handle.ts';
export type { MachineEnd, MachineEventMap } from './machine/handle.ts';
export type { DeletedDevice } from './machine/messages.ts';
export { SerialPort } from './machine/serial-port.ts';
export { completeConfig, ConfigError, drive } from './machine/config.ts';
export type {
  BlockOptions,
  BootConfig,
  DeviceConfig,
  DriveConfig,
  DriveInterface,
  IcountConfig,
  MachineConfig,
  NamedFile,
  RtcConfig,
  SerialConfig,
} from './machine/config.ts';
export type { GraphicsScreen, InputEvent, Picture, PointerButton, PowerEvent, TextScreen } from './machine/interfaces.ts';
export type { RunState } from './machine/machine.ts';
