import assert from 'node:assert/strict';
import { test } from 'node:test';
import { completeConfig, type MachineConfig } from './config.ts';

test('what is left out is filled in', () => {
  const config = completeConfig({ memory: 64 * 2 ** 20 });
  assert.equal(config.memory, 64 * 2 ** 20);
  assert.equal(config.accel, 'jit');
  assert.deepEqual(config.serials, ['connected']);
  assert.deepEqual(structuredClone(config), config);
});

test('what cannot be used is named', () => {
  const file = { name: 'f', data: new Uint8Array(10) };
  const cases: [object, RegExp][] = [
    [{ machine: 'isapc' }, /^ConfigError|machine: "isapc"/],
    [{ accel: 'tcg' }, /accel: "tcg" is not one of/],
    [{ memory: 0 }, /memory: /],
    [{ memory: 2 ** 20 + 1 }, /memory: /],
    [{ memory: NaN }, /memory: /],
    [{ memory: '512' }, /memory: /],
    [{ icount: { shift: 99, sleep: true } }, /icount: shift 99/],
    [{ rtc: { base: 'noon', clock: 'vm' } }, /rtc: base "noon"/],
    [{ rtc: { base: 0, clock: 'x' } }, /rtc: clock "x"/],
    [{ serials: ['connected', 'stdio'] }, /serials: "stdio"/],
    [{ serials: ['none', 'none', 'none', 'none', 'none'] }, /serials: at most 4/],
    [{ debugcon: { iobase: 0x10000 } }, /debugcon: iobase/],
    [{ debugExit: { iobase: 0xf4, iosize: 3 } }, /debugExit: iosize/],
    [{ debugExit: { iobase: 0xffff, iosize: 4 } }, /debugExit: iobase/],
    [{ uuid: new Uint8Array(3) }, /uuid: not 16 bytes/],
    [{ bios: file }, /bios: f: size/],
    [{ initrd: file }, /initrd: needs a kernel/],
    [{ append: 'x' }, /append: needs a kernel/],
    [{ colour: 'red' }, /colour: no such setting/],
  ];
  for (const [given, expected] of cases) {
    assert.throws(() => completeConfig(given as Partial<MachineConfig>), expected, JSON.stringify(given));
  }
});
