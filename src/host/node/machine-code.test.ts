/** Machine code in memory, called from here. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mapMachineCode } from './machine-code.ts';

const skip = process.platform !== 'linux' || process.arch !== 'x64' ? 'for Linux on x86-64' : false;

/** mov eax, value; ret */
const returning = (value: number): number[] => [0xb8, value, 0, 0, 0, 0xc3];

test('code of several pieces is called, each its own, also where one was before', { skip }, () => {
  for (let round = 0; round < 3; round++) {
    const pieces = [1, 2, 3].map((n) => {
      const piece = mapMachineCode(65536)!;
      assert.ok(piece.address > 0 && piece.address + 65536 <= 2 ** 31);
      piece.bytes.set(returning(10 * round + n));
      return piece;
    });
    assert.deepEqual(
      pieces.map((piece) => piece.call()),
      [1, 2, 3].map((n) => 10 * round + n),
    );
    for (const piece of pieces) piece.release();
  }
});

test('what cannot be had is none', { skip }, () => {
  assert.equal(mapMachineCode(2 ** 40), null);
});

test('code reads the memory whose address it is told', { skip }, () => {
  const piece = mapMachineCode(4096)!;
  const memory = new SharedArrayBuffer(16);
  new Int32Array(memory)[1] = 4711;
  const address = piece.addressOf(memory) + 4n;
  // mov rax, address; mov eax, [rax]; ret
  piece.bytes.set([0x48, 0xb8, ...new Uint8Array(BigUint64Array.of(address).buffer), 0x8b, 0x00, 0xc3]);
  assert.equal(piece.call(), 4711);
  piece.release();
});
