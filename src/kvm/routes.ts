/**
 * What the interrupt inputs (GSIs) of a VM lead to. The first ones are the chips' own. Behind them are messages that devices send by
 * eventfds (KVM_IRQFD, a device's `ioeventfd=on`): each message that has been sent has an input, and an eventfd connected to it.
 * So an interrupt vector goes another way as soon as a guest has changed it, and a masked one none.
 */
import { Eventfd } from './eventfd.ts';
import type { Route, Vm } from './vm.ts';

/** Messages of a machine's that have inputs; others are sent without. */
const MOST_MESSAGES = 128;

interface Line {
  readonly route: Route;
  readonly eventfd: Eventfd;
  connected: boolean;
}

export class Routes {
  /** Messages that have gone by eventfds. */
  signalled = 0;
  private readonly vm: Vm;
  private readonly first: number;
  private own: readonly Route[] = [];
  /** By data and address, 32 bits each. */
  private readonly lines = new Map<number, Map<number, Line>>();
  /** All of them, in the order of their inputs. */
  private readonly all: Line[] = [];
  /** How many there may be. */
  private most = -1;

  /** @param inputs of the chips' own, which are the first ones */
  constructor(vm: Vm, inputs: number) {
    this.vm = vm;
    this.first = inputs;
  }

  /** @param own all routes of the chips */
  setOwn(own: readonly Route[]): void {
    this.own = own;
    this.tell();
  }

  /**
   * Sends a message to the local APICs.
   * @param address below 4 GiB
   * @param byEventfd by an eventfd of its own, unless there are too many
   */
  send(address: number, data: number, byEventfd = false): void {
    if (!byEventfd || !this.signal(address, data)) this.vm.signalMsi(address, 0, data);
  }

  /** The kernel may deliver them by a thread of its own: it has done so when this returns. */
  awaitMessages(): void {
    for (const line of this.all) {
      if (line.connected) this.vm.disconnectIrqfd(line.eventfd.fd, line.route.gsi);
      line.connected = false;
    }
  }

  close(): void {
    this.most = 0;
    this.lines.clear();
    // What the kernel has of them goes with the VM.
    for (const { eventfd } of this.all.splice(0)) eventfd.close();
  }

  /** @returns false where it has none */
  private signal(address: number, data: number): boolean {
    const line = this.lines.get(data)?.get(address) ?? this.add(address, data);
    if (line === null) return false;
    if (!line.connected && !this.connect(line)) return false;
    line.eventfd.signal();
    this.signalled++;
    return true;
  }

  private add(address: number, data: number): Line | null {
    if (this.most < 0) this.most = this.limit();
    if (this.all.length >= this.most) return null;
    let eventfd: Eventfd;
    try {
      eventfd = new Eventfd(this.vm.libc);
    } catch {
      return null;
    }
    const route = { gsi: this.first + this.all.length, address: BigInt(address), data };
    const line = { route, eventfd, connected: false };
    this.all.push(line);
    try {
      this.tell();
    } catch {
      // A guest may have the devices write anything.
      this.all.pop();
      eventfd.close();
      return null;
    }
    const same = this.lines.get(data);
    if (same === undefined) this.lines.set(data, new Map([[address, line]]));
    else same.set(address, line);
    return line;
  }

  private connect(line: Line): boolean {
    try {
      this.vm.connectIrqfd(line.eventfd.fd, line.route.gsi);
    } catch {
      return false;
    }
    line.connected = true;
    return true;
  }

  private limit(): number {
    const inputs = this.vm.check('KVM_CAP_IRQFD') === 0 ? 0 : this.vm.check('KVM_CAP_IRQ_ROUTING');
    return Math.max(0, Math.min(MOST_MESSAGES, inputs - this.first));
  }

  private tell(): void {
    this.vm.setRoutes([...this.own, ...this.all.map(({ route }) => route)]);
  }
}
