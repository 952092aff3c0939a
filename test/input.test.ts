/** Pointers in a real guest: Debian's cloud kernel with its drivers for virtio's and for PS/2's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guestOrSkip, talkTo } from './virtio-guest.ts';

const LIMIT = { timeout: 120_000 };

test('a tablet is moved to places, a mouse by steps, and buttons go where the last movement went', LIMIT, async (t) => {
  const guest = await guestOrSkip(t);
  if (guest === null) return;
  const talk = await talkTo(guest, ['virtio_pci', 'virtio_input', 'evdev'], {
    devices: [{ driver: 'virtio-mouse-pci' }, { driver: 'virtio-tablet-pci' }],
  });
  await using machine = talk.machine;
  const listen = (name: string, file: string) =>
    talk.run(
      `for one in /sys/class/input/event*; do if grep -q "${name}" $one/device/name; then cat /dev/input/\${one##*/} >/tmp/${file} & fi; done; sleep 0.5`,
    );
  await listen('QEMU Virtio Tablet', 'tablet');
  await listen('QEMU Virtio Mouse', 'mouse');
  /** Events as [type, code, value], without the times that come before them. */
  const heard = async (file: string, count: number): Promise<number[][]> => {
    const hex = await talk.run(
      `until [ $(wc -c </tmp/${file}) -ge ${24 * count} ]; do sleep 0.1; done; od -An -v -tx1 -w24 /tmp/${file}; : >/tmp/${file}`,
    );
    return [...hex.matchAll(/^( [0-9a-f]{2}){24}$/gm)].map(([line]) => {
      const bytes = Uint8Array.from(line.trim().split(' '), (byte) => Number.parseInt(byte, 16));
      const view = new DataView(bytes.buffer);
      return [view.getUint16(16, true), view.getUint16(18, true), view.getInt32(20, true)];
    });
  };
  assert.equal(await machine.mouse.moveTo(0.5, 1), true);
  assert.equal(await machine.mouse.click('right'), true);
  const [LEFT, RIGHT, WHEEL] = [0x110, 0x111, 8];
  assert.deepEqual(await heard('tablet', 7), [
    ...[
      [3, 0, 16384],
      [3, 1, 32767],
      [0, 0, 0],
    ],
    ...[
      [1, RIGHT, 1],
      [0, 0, 0],
    ],
    ...[
      [1, RIGHT, 0],
      [0, 0, 0],
    ],
  ]);
  await machine.mouse.moveBy(-3, 7);
  await machine.mouse.press();
  await machine.mouse.release();
  await machine.mouse.scroll(-1);
  assert.deepEqual(await heard('mouse', 9), [
    ...[
      [2, 0, -3],
      [2, 1, 7],
      [0, 0, 0],
    ],
    ...[
      [1, LEFT, 1],
      [0, 0, 0],
    ],
    ...[
      [1, LEFT, 0],
      [0, 0, 0],
    ],
    ...[
      [2, WHEEL, 1],
      [0, 0, 0],
    ],
  ]);
});
