/** What a device has of the machine for as long as it is there: names, timers, its ends of backends. */
import { type CharBackend, NO_OFFLOADS, type NetworkPort, type Timer, type VirtualClock } from './interfaces.ts';

export class Holdings {
  private readonly releases: (() => void)[] = [];

  /** @param release called when the device leaves */
  add(release: () => void): void {
    this.releases.push(release);
  }

  /** Gives everything back. */
  release(): void {
    for (const one of this.releases.splice(0).reverse()) one();
  }

  /** Takes a name. */
  claim(names: Set<string>, name: string): void {
    names.add(name);
    this.add(() => names.delete(name));
  }

  /** The machine's clock, whose timers end with the device. */
  clock(clock: VirtualClock): VirtualClock {
    const timers: Timer[] = [];
    this.add(() => timers.forEach((timer) => timer.cancel()));
    return {
      now: () => clock.now(),
      nextDeadline: () => clock.nextDeadline(),
      runTimers: () => clock.runTimers(),
      paceUntil: (end) => clock.paceUntil?.(end),
      timer(fire) {
        const timer = clock.timer(fire);
        timers.push(timer);
        return timer;
      },
    };
  }

  network(port: NetworkPort): NetworkPort {
    this.add(() => {
      port.onReceive = null;
      port.onWritable = null;
      port.onLinkChange = null;
      port.accepts = NO_OFFLOADS;
    });
    return port;
  }

  character(backend: CharBackend): CharBackend {
    this.add(() => {
      backend.onReceive = null;
      backend.onDrain = null;
    });
    return backend;
  }
}
