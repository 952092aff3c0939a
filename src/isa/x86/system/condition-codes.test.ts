import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CTL_CTX } from '../../../ir/vcpu-block.ts';
import { CC_OPS, readArithmeticFlags } from '../flags.ts';
import { CC_DST, CC_SRC, CC_SRC2 } from '../state.ts';
import { arithmeticFlags } from './condition-codes.ts';

const EDGES = [
  0n,
  1n,
  0x7fn,
  0x80n,
  0xffn,
  0x7fffn,
  0x8000n,
  0xffffn,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  0x7fffffffffffffffn,
  0x8000000000000000n,
  0xffffffffffffffffn,
  0x123456789abcdef0n,
];

test('every operation gives the flags that flags.ts gives', () => {
  const buffer = new ArrayBuffer(1024);
  const view = new DataView(buffer);
  const words = new Int32Array(buffer);
  for (let op = 0; op < CC_OPS; op++) {
    view.setInt32(CTL_CTX, op, true);
    for (const x of EDGES) {
      for (const y of EDGES) {
        view.setBigUint64(CC_DST, x, true);
        view.setBigUint64(CC_SRC, y, true);
        view.setBigUint64(CC_SRC2, y & 1n, true);
        assert.equal(arithmeticFlags(words, view, 0), readArithmeticFlags(view, 0), `operation ${op}, ${x} ${y}`);
      }
    }
  }
});
