import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StateValue } from '../../../machine/interfaces.ts';
import { FPREG } from '../state.ts';
import { Kit } from './test-kit.ts';

/** Largest values of numbers that cannot have any; of those of 16 bits nothing is said. */
const MOST: Record<string, number> = {
  interruptShadow: 2,
  halted: 1,
  nmiBlocked: 1,
  cpl: 3,
  ftop: 7,
  limit: 0xffffffff,
  attributes: 0x1ffff,
  clockVersion: 0xffffffff,
};
/** EFLAGS that can be set; RF is kept only while there are breakpoints that it could matter for. */
const FLAGS = 0x3e7fd7n;

function generator(seed: number) {
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  const word = (): number => random(2 ** 16) * 2 ** 16 + random(2 ** 16);
  const big = (): bigint => (BigInt(word()) << 32n) | BigInt(word());
  /** Another legal value in the place of one. */
  const other = (name: string, value: StateValue): StateValue => {
    if (name === 'rflags') return (big() & FLAGS) | 2n;
    if (name === 'smbase') return word() | 0;
    if (name === 'exceptionWatchers') return Array.from({ length: random(5) }, (_, i) => i * 4096 + random(4096));
    if (typeof value === 'bigint') return big();
    if (typeof value === 'boolean') return random(2) === 0;
    if (typeof value === 'number') return Math.floor((word() / 2 ** 32) * ((MOST[name] ?? 0xffff) + 1));
    // An x87 register is ten bytes of sixteen.
    if (name === 'x87') return (value as Uint8Array).map((_, i) => (i % 16 < 10 ? random(256) : 0));
    if (value instanceof Uint8Array) return value.map(() => random(name === 'x87Empty' ? 2 : 256));
    if (Array.isArray(value)) return value.map(() => word() | 0);
    return Object.fromEntries(
      Object.entries(value as { [name: string]: StateValue }).map(([key, one]) => [key, other(key, one)]),
    );
  };
  return other;
}

for (const model of ['max', 'qemu32', 'Nehalem']) {
  test(`any state of a ${model} comes back as it was`, () => {
    const [kit, copy] = [new Kit(model), new Kit(model)];
    const base = kit.cpu.saveState();
    for (let seed = 1; seed <= 300; seed++) {
      const state = { version: base.version, fields: generator(seed)('', base.fields) as typeof base.fields };
      kit.cpu.loadState(structuredClone(state));
      const saved = kit.cpu.saveState();
      assert.deepEqual(saved, state, `seed ${seed}`);
      copy.cpu.loadState(saved);
      assert.deepEqual(copy.cpu.saveState(), state, `seed ${seed}, once more`);
      assert.equal(copy.cpu.blockFlags(), kit.cpu.blockFlags());
    }
  });
}

test('each field that does not fit is named, and states from before have defaults', () => {
  const kit = new Kit().long64();
  const saved = kit.cpu.saveState();
  const bad = (change: (fields: { [name: string]: StateValue }) => void, message: RegExp): void => {
    const state = structuredClone(saved);
    change(state.fields);
    assert.throws(() => kit.cpu.loadState(state), message);
  };
  for (const name of Object.keys(saved.fields)) {
    if (name === 'exceptionWatchers' || name === 'clockVersion') continue;
    bad((fields) => delete fields[name], new RegExp(`saved CPU state: field "${name}" is not`));
    bad((fields) => (fields[name] = 'text'), new RegExp(`saved CPU state: field "${name}`));
  }
  bad((fields) => (fields['cpl'] = 4), /field "cpl" is not a number from 0 to 3/);
  bad((fields) => (fields['rax'] = 2n ** 64n), /field "rax" is not an integer of 64 bits/);
  bad((fields) => (fields['x87Empty'] = new Uint8Array(8).fill(2)), /field "x87Empty"/);
  bad((fields) => ((fields['cs'] as { [name: string]: StateValue })['limit'] = -1), /field "cs\.limit"/);
  bad((fields) => (fields['msrs'] = { zz: 1n }), /MSR zz, which this CPU model lacks/);
  const old = structuredClone(saved);
  for (const name of ['exceptionWatchers', 'clockVersion']) delete old.fields[name];
  const pending = old.fields['pending'] as { [name: string]: StateValue };
  for (const name of ['smmNmiBlocked', 'init', 'heldTraps']) delete pending[name];
  kit.cpu.loadState(old);
  assert.deepEqual(kit.cpu.saveState(), saved);
});

test('nothing beside the x87 registers is taken from saved states, nor put into them', () => {
  const kit = new Kit().long64();
  const saved = kit.cpu.saveState();
  const state = structuredClone(saved);
  (state.fields['x87'] as Uint8Array).fill(0xff);
  kit.cpu.loadState(state);
  const { core } = kit.cpu;
  for (let i = 0; i < 8; i++) assert.equal(core.get(FPREG + 16 * i + 8), 0xffff);
  core.set(FPREG + 8, -1);
  const registers = kit.cpu.saveState().fields['x87'] as Uint8Array;
  for (let i = 0; i < 8; i++) assert.deepEqual(registers.slice(16 * i + 10, 16 * i + 16), new Uint8Array(6));
});
