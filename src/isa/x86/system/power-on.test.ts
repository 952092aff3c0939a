import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootGdt, flatState } from '../../../machine/loader/cpu-state.ts';
import type { DeviceState } from '../../../machine/interfaces.ts';
import { powerOnState, startState } from './power-on.ts';
import { Kit } from './test-kit.ts';

/** Without MSRs that only some models have. */
const comparable = ({ fields }: DeviceState) => ({ ...fields, msrs: null });

test('a vCPU that was reset is in the state after power-on', () => {
  const { cpu } = new Kit();
  cpu.reset();
  const [version] = cpu.cpuid.leaf(1, 0);
  assert.deepEqual(comparable(cpu.saveState()), comparable(powerOnState(version)));
});

test('a vCPU begins as a loader wants it', () => {
  const { cpu } = new Kit();
  for (const mode of ['long64', 'prot32'] as const) {
    assert.equal(bootGdt(mode).length, 32);
    const start = flatState(mode, { rip: 0x200000, rsi: 0x1000, rbx: 5, rsp: 0x8000, cr3: 0x9000, gdtBase: 0x500 });
    cpu.setInitialState(start);
    const state = startState(cpu.cpuid.leaf(1, 0)[0], start);
    assert.deepEqual(comparable(cpu.saveState()), comparable(state), mode);
    const [[number, value]] = Object.entries(state.fields['msrs']!) as [[string, bigint]];
    assert.equal((cpu.saveState().fields['msrs'] as { [number: string]: bigint })[number], value);
  }
});

test('an event whose delivery had begun elsewhere comes first, but what INT raises comes by INT', () => {
  const { cpu, ram } = new Kit();
  cpu.reset();
  ram.setUint16(4 * 0x20, 0x1234, true);
  ram.setUint16(4 * 0x20 + 2, 0x0100, true);
  const state = cpu.saveState();
  const injecting = (kind: string): DeviceState => ({
    version: state.version,
    fields: { ...state.fields, injected: { vector: 0x20, errorCode: -1, kind } },
  });
  cpu.loadState(injecting('software'));
  assert.equal(cpu.saveState().fields['rip'], 0xfff0n);
  cpu.loadState(injecting('interrupt'));
  const { rip, cs, rsp } = cpu.saveState().fields as { rip: bigint; cs: { selector: number }; rsp: bigint };
  assert.deepEqual([rip, cs.selector, rsp], [0x1234n, 0x0100, 0xfffan]);
  assert.throws(() => cpu.loadState(injecting('miracle')), /field "injected.kind" is not one of exception, interrupt/);
});
