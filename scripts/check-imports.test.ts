import assert from 'node:assert/strict';
import { test } from 'node:test';
import { check, findCycle, importsOf } from './check-imports.ts';

const one = (path: string, text: string): string[] => check([{ path, text }]);

test('imports are found in all their forms', () => {
  const text = [
    "import './side.ts';",
    "import type { A } from './a.ts';",
    'import {',
    '  b,',
    "} from './b.ts';",
    "export { c } from './c.ts';",
    "export type { D } from './d.ts';",
    "const e = 'import';",
  ].join('\n');
  assert.deepEqual(
    importsOf(text).map(({ target }) => target),
    ['./side.ts', './a.ts', './b.ts', './c.ts', './d.ts'],
  );
  assert.deepEqual(
    importsOf(text).map(({ typeOnly }) => typeOnly),
    [false, true, false, false, true],
  );
});

test('rooms import downward only', () => {
  assert.deepEqual(one('src/machine/pc.ts', "import { X } from '../devices/x/x.ts';"), []);
  assert.match(one('src/devices/x/x.ts', "import { P } from '../../machine/pc.ts';")[0]!, /contracts/);
  assert.deepEqual(one('src/devices/x/x.ts', "import type { D } from '../../machine/interfaces.ts';"), []);
  assert.match(one('src/machine/pc.ts', "import { X } from '../cli/x.ts';")[0]!, /may not import/);
  assert.match(one('src/ir/ops.ts', "import { X } from '../jit/x.ts';")[0]!, /may not import/);
  assert.match(one('src/jit/x.ts', "import { X } from '../isa/x86/alu.ts';")[0]!, /contracts/);
});

test('KVM is known where machines are made, and knows contracts', () => {
  assert.deepEqual(one('src/machine/create.ts', "import { Kvm } from '../kvm/system.ts';"), []);
  assert.match(one('src/machine/pc.ts', "import { Kvm } from '../kvm/system.ts';")[0]!, /only src\/machine\/create.ts/);
  assert.deepEqual(one('src/kvm/x.ts', "import { a } from 'node:fs';\nimport { B } from '../isa/x86/state.ts';"), []);
  assert.match(one('src/kvm/x.ts', "import { X } from '../isa/x86/alu.ts';")[0]!, /contracts/);
  assert.match(one('src/kvm/x.ts', "import { X } from '../machine/pc.ts';")[0]!, /contracts/);
});

test('siblings among the devices do not know each other', () => {
  assert.match(one('src/devices/x/x.ts', "import { Y } from '../y/y.ts';")[0]!, /sibling/);
  assert.deepEqual(one('src/devices/x/x.ts', "import { S } from '../state.ts';"), []);
  assert.deepEqual(one('src/devices/x/x.ts', "import { S } from './z.ts';"), []);
});

test('host modules and packages', () => {
  assert.match(one('src/machine/x.ts', "import { a } from 'node:fs';")[0]!, /host module/);
  assert.deepEqual(one('src/host/node/x.ts', "import { a } from 'node:fs';"), []);
  assert.deepEqual(one('src/machine/x.test.ts', "import { a } from 'node:fs';"), []);
  assert.match(one('src/cli/x.ts', "import a from 'left-pad';")[0]!, /no dependencies/);
});

test('cycles at run time, and files that are too long', () => {
  const a = { path: 'src/ir/a.ts', text: "import { b } from './b.ts';" };
  const b = { path: 'src/ir/b.ts', text: "import { a } from './a.ts';" };
  const typed = { path: 'src/ir/b.ts', text: "import type { a } from './a.ts';" };
  assert.equal(findCycle([a, b]), 'src/ir/a.ts -> src/ir/b.ts -> src/ir/a.ts');
  assert.equal(findCycle([a, typed]), null);
  assert.match(one('src/ir/long.ts', '\n'.repeat(801))[0]!, /801 lines/);
});
