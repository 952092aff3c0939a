/** Debugging aids of QEMU's: a port that prints, and a port that ends the machine. */
import type { CharBackend, Device, DeviceState, IoHandler } from '../../machine/interfaces.ts';

/** Reading the port returns this, by which guests find out that it exists. */
const READBACK = 0xe9;

export class DebugConsole implements Device {
  readonly type = 'isa-debugcon';
  readonly id: string;
  readonly ports: IoHandler;

  constructor(backend: CharBackend, id = 'debugcon', readback = READBACK) {
    this.id = id;
    this.ports = {
      read: () => readback,
      write: (_offset, _size, value) => {
        backend.write(Uint8Array.of(value));
      },
    };
  }

  reset(): void {
    // Has no state.
  }

  saveState(): DeviceState {
    return { version: 1, fields: {} };
  }

  loadState(): void {
    // Has no state.
  }
}

export class DebugExit implements Device {
  readonly type = 'isa-debug-exit';
  readonly id: string;
  readonly ports: IoHandler;

  /** @param exit called with the process's exit code, which is always odd */
  constructor(exit: (code: number) => void, id = 'debugexit') {
    this.id = id;
    this.ports = {
      read: () => 0,
      write: (_offset, _size, value) => exit(((value * 2) | 1) >>> 0),
    };
  }

  reset(): void {
    // Has no state.
  }

  saveState(): DeviceState {
    return { version: 1, fields: {} };
  }

  loadState(): void {
    // Has no state.
  }
}
