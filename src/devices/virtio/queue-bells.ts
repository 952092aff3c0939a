/** Doorbells of a device's queues (virtio 1.2, 4.1.5.2), as a transport has them. */
import type { Doorbell } from '../../machine/interfaces.ts';
import type { VirtioDevice } from './device.ts';

/**
 * @param byEventfd the host's kernel is to answer for them (`ioeventfd=on`), as long as the driver is ready
 * @param place of a queue's doorbell
 * @returns what to ask for them, each time anew
 */
export function queueBells(
  device: VirtioDevice,
  byEventfd: boolean,
  place: (queue: number) => Doorbell,
): () => readonly Doorbell[] {
  const plain = device.queues.map(({ index }) => place(index));
  if (!byEventfd) return () => plain;
  const answeredFor = plain.map((bell) => ({ ...bell, eventfd: true }));
  return () => (device.running ? answeredFor : plain);
}
