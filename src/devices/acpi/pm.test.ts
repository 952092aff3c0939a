import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PowerEvent } from '../../machine/interfaces.ts';
import { ManualClock, RecordingLine } from '../mocks.ts';
import { ACPI_DISABLE, ACPI_ENABLE, AcpiPm, ResetControl } from './pm.ts';

function pm() {
  const clock = new ManualClock();
  const sci = new RecordingLine();
  const events: PowerEvent[] = [];
  const device = new AcpiPm(clock, sci, (event) => events.push(event));
  device.reset();
  return { clock, sci, events, device, ports: device.ports };
}

test('the SMI command port switches ACPI mode', () => {
  const p = pm();
  assert.equal(p.ports.read(4, 2), 0);
  p.device.smi.write(0, 1, ACPI_ENABLE);
  assert.equal(p.ports.read(4, 2), 1);
  p.device.smi.write(0, 1, ACPI_DISABLE);
  assert.equal(p.ports.read(4, 2), 0);
});

test('S5 powers off', () => {
  const p = pm();
  p.ports.write(4, 2, 0x2000 | (5 << 10));
  assert.deepEqual(p.events, [], 'another sleep type');
  p.ports.write(4, 2, 0x2001);
  assert.deepEqual(p.events, ['poweroff']);
  assert.equal(p.ports.read(4, 2) & 0x2000, 0);
});

test('the power button raises the SCI until its status is cleared', () => {
  const p = pm();
  p.device.smi.write(0, 1, ACPI_ENABLE);
  p.ports.write(2, 2, 0x0100);
  p.device.powerButton();
  assert.equal(p.sci.level, true);
  p.ports.write(0, 2, 0x0100);
  assert.equal(p.sci.level, false);
});

test('the timer runs at 3.58 MHz in 24 bits and notes each half', () => {
  const p = pm();
  p.clock.run(1e9);
  assert.equal(p.ports.read(8, 4), 3_579_545);
  p.device.smi.write(0, 1, ACPI_ENABLE);
  p.ports.write(2, 2, 1);
  assert.equal(p.sci.level, false);
  p.clock.run(2e9);
  assert.equal(p.sci.level, true);
  p.ports.write(0, 2, 1);
  assert.equal(p.sci.level, false);
  p.clock.run(2e9);
  assert.equal(p.ports.read(8, 4), (5 * 3_579_545) % 2 ** 24);
});

test('general-purpose events', () => {
  const p = pm();
  p.device.smi.write(0, 1, ACPI_ENABLE);
  p.device.raiseGpe(1);
  assert.equal(p.sci.level, false);
  p.device.gpe.write(2, 1, 2);
  assert.equal(p.sci.level, true);
  p.device.gpe.write(0, 1, 2);
  assert.equal(p.sci.level, false);
});

test('port CF9h resets on the rise of bit 2', () => {
  let resets = 0;
  const control = new ResetControl(() => resets++);
  control.ports.write(0, 1, 2);
  assert.equal(resets, 0);
  control.ports.write(0, 1, 6);
  control.ports.write(0, 1, 6);
  assert.equal(resets, 1);
});
