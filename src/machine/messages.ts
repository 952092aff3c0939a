/** Everything that passes between a machine's thread and the handle to it. */
import type { BlockOptions, DeviceConfig, DriveConfig, MachineConfig } from './config.ts';
import type { GraphicsScreen, InputEvent, Picture, PowerEvent, TextScreen } from './interfaces.ts';
import type { AcceleratorName } from './accelerator.ts';
import type { RunState } from './machine.ts';
import type { NetdevConfig } from './network-config.ts';

/** Requests without arguments; each is answered by `done`. */
export type MachineCommand = 'start' | 'pause' | 'reset' | 'quit' | 'powerdown' | 'nmi';

/** Questions, and what answers them. */
export interface Queries {
  /** Null while there is no text on the display, or no display. */
  text: TextScreen | null;
  /** What kind of screen is shown, too. */
  screen: TextScreen | GraphicsScreen | null;
  picture: Picture | null;
}

/** What changes a machine that is there: what each is given, and what answers it. */
export interface Calls {
  addDevice: { given: DeviceConfig; answer: DeviceConfig };
  removeDevice: { given: string; answer: null };
  addDrive: { given: DriveConfig; answer: null };
  removeDrive: { given: string; answer: null };
  addBlockdev: { given: BlockOptions; answer: null };
  removeBlockdev: { given: string; answer: null };
  addNetdev: { given: NetdevConfig; answer: null };
  removeNetdev: { given: string; answer: null };
  addChardev: { given: { readonly id: string; readonly channel: number }; answer: null };
  removeChardev: { given: string; answer: null };
  /** Bytes that the guest is to make do with; bytes that it has. */
  setBalloon: { given: number; answer: null };
  getBalloon: { given: null; answer: number };
  /** Answered by whether some device has taken them. */
  sendInput: { given: readonly InputEvent[]; answer: boolean };
}

/** A device has left the machine (`DEVICE_DELETED`). */
export interface DeletedDevice {
  /** Null for a device without a name. */
  readonly device: string | null;
  readonly path: string;
}

/** Serial ports are channels 0 to 3. */
export const DEBUGCON_CHANNEL = 4;
/** Byte streams by name are channels from here on, in the order of the configuration. */
export const FIRST_CHARDEV_CHANNEL = 16;

/** Bytes of guest output that may be on their way before the guest has to wait. */
export const OUTPUT_WINDOW = 1 << 18;
/** Bytes of input that may be on their way to a port. */
export const INPUT_WINDOW = 1 << 12;

/** Steps of saving a machine and of going on from what was saved; each is answered by `done`. */
export type StateStep =
  /** Pauses the machine, and gets it ready. */
  | { readonly step: 'save'; readonly compress: boolean }
  /** Answered by the next bytes, or by null at the end. */
  | { readonly step: 'next' }
  /** No more bytes are wanted. */
  | { readonly step: 'end' }
  /** Answered when they have been taken; null is the end, answered by whether the saved machine ran. */
  | { readonly step: 'load'; readonly data: Uint8Array | null };

export type ToMachine =
  | ({ readonly type: 'state'; readonly id: number } & StateStep)
  | { readonly type: 'accelerator'; readonly id: number; readonly name: AcceleratorName }
  | { readonly type: 'create'; readonly config: MachineConfig }
  | { readonly type: 'command'; readonly id: number; readonly command: MachineCommand }
  | { readonly type: 'query'; readonly id: number; readonly query: keyof Queries }
  | {
      [K in keyof Calls]: { readonly type: 'call'; readonly id: number; readonly call: K; readonly given: Calls[K]['given'] };
    }[keyof Calls]
  /** Changes of keys, as scancodes; answered when they have been typed. */
  | { readonly type: 'keys'; readonly id: number; readonly sequences: readonly (readonly number[])[] }
  | { readonly type: 'input'; readonly channel: number; readonly data: Uint8Array }
  | { readonly type: 'break'; readonly channel: number }
  /** So many bytes of output have been passed on. */
  | { readonly type: 'consumed'; readonly channel: number; readonly bytes: number };

/** What `done` may bring along. */
export type Answer = Queries[keyof Queries] | Calls[keyof Calls]['answer'] | Uint8Array | { readonly wasRunning: boolean };

export type FromMachine =
  | { readonly type: 'created' }
  | { readonly type: 'failed'; readonly message: string; readonly field: string | null }
  | { readonly type: 'done'; readonly id: number; readonly error: string | null; readonly value?: Answer }
  | ({ readonly type: 'deviceDeleted' } & DeletedDevice)
  | { readonly type: 'output'; readonly channel: number; readonly data: Uint8Array }
  /** So many bytes of input have been taken by the guest's port. */
  | { readonly type: 'taken'; readonly channel: number; readonly bytes: number }
  | { readonly type: 'state'; readonly state: RunState }
  | { readonly type: 'reset' }
  /** Something the user should know. */
  | { readonly type: 'warning'; readonly line: string }
  | { readonly type: 'trace'; readonly lines: readonly string[] }
  | { readonly type: 'end'; readonly event: PowerEvent; readonly status: number };
