import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockBackend } from '../../machine/interfaces.ts';
import { byPieces } from '../mocks.ts';
import type { ScsiData, Sense } from '../scsi.ts';
import { ScsiCd } from './cd.ts';
import { ScsiDisk } from './disk.ts';

const BLOCKS = 64;

class Memory implements BlockBackend {
  readonly readPieces = byPieces(this).readPieces;
  readonly writePieces = byPieces(this).writePieces;
  readonly data = new Uint8Array(BLOCKS * 512).map((_, i) => i >> 9);
  readonly size = this.data.length;
  readonly readOnly = false;
  readonly calls: string[] = [];

  read(offset: number, into: Uint8Array): void {
    into.set(this.data.subarray(offset, offset + into.length));
  }

  write(offset: number, from: Uint8Array): void {
    this.data.set(from, offset);
  }

  flush(): void {
    this.calls.push('flush');
  }

  discard(offset: number, length: number): void {
    this.calls.push(`discard ${offset} ${length}`);
  }

  writeZeroes(offset: number, length: number): void {
    this.calls.push(`zero ${offset} ${length}`);
  }

  close(): void {
    // Nothing to close.
  }
}

const options = (backend: BlockBackend | null) => ({
  ...{ id: 'u', backend, serial: 'serial', vendor: 'V', product: 'P', version: '1', wwn: 0x5000n },
  ...{ readOnly: false, removable: false, rotationRate: 1, blockSize: 512 },
});

function run(unit: ScsiDisk | ScsiCd, cdb: readonly number[], room = 0, given: Uint8Array = new Uint8Array(0)) {
  const bytes = new Uint8Array(room);
  const data: ScsiData = {
    inLength: room,
    outLength: given.length,
    // In pieces, as scattered memory has it.
    takeIn: (at, length) => bytes.subarray(at, at + Math.min(length, 512)),
    endIn: () => undefined,
    takeOut: (at, length) => given.subarray(at, at + Math.min(length, 512)),
  };
  let result: { status: number; sense: Sense | null; bytes: Uint8Array } | null = null;
  unit.execute(
    Uint8Array.from({ length: 16 }, (_, i) => cdb[i] ?? 0),
    data,
    (status, sense, count) => {
      result = { status, sense, bytes: bytes.subarray(0, count) };
    },
  );
  return result!;
}

test('disk: who it is, how large it is', () => {
  const disk = new ScsiDisk(options(new Memory()));
  assert.equal(String.fromCharCode(...run(disk, [0x12, 0, 0, 0, 36], 36).bytes.subarray(8, 36)), 'V       P               1   ');
  assert.deepEqual([...run(disk, [0x12, 1, 0, 0, 99], 99).bytes.subarray(4)], [0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]);
  assert.equal(String.fromCharCode(...run(disk, [0x12, 1, 0x80, 0, 99], 99).bytes.subarray(4)), 'serial');
  assert.deepEqual([...run(disk, [0x25], 8).bytes], [0, 0, 0, BLOCKS - 1, 0, 0, 2, 0]);
  assert.equal(run(disk, [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], 32).bytes[7], BLOCKS - 1);
  assert.equal(run(disk, [0x1a, 0, 8, 0, 99], 99).bytes[6], 4, 'there is a write cache');
});

test('disk: reads and writes of every length of command', () => {
  const memory = new Memory();
  const disk = new ScsiDisk(options(memory));
  assert.equal(run(disk, [0x08, 0, 0, 5, 1], 512).bytes[0], 5);
  assert.equal(run(disk, [0x28, 0, 0, 0, 0, 6, 0, 0, 2], 1024).bytes[512], 7);
  assert.equal(run(disk, [0xa8, 0, 0, 0, 0, 8, 0, 0, 0, 1], 512).bytes[0], 8);
  assert.equal(run(disk, [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1], 512).bytes[0], 9);
  run(disk, [0x2a, 8, 0, 0, 0, 1, 0, 0, 2], 0, new Uint8Array(1024).fill(0xaa));
  assert.ok(memory.data.subarray(512, 1536).every((byte) => byte === 0xaa));
  assert.deepEqual(memory.calls, ['flush'], 'forced unit access');
  assert.deepEqual(run(disk, [0x28, 0, 0, 0, 0, BLOCKS, 0, 0, 1], 512).sense, [5, 0x21, 0]);
  assert.deepEqual(run(disk, [0xee]).sense, [5, 0x20, 0]);
});

test('disk: unmap, zeroes, and a disk that cannot be written', () => {
  const memory = new Memory();
  const disk = new ScsiDisk(options(memory));
  const list = new Uint8Array(8 + 16);
  list.set([0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2]);
  assert.equal(run(disk, [0x42, 0, 0, 0, 0, 0, 0, 0, 24], 0, list).status, 0);
  run(disk, [0x93, 8, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5], 0, new Uint8Array(512));
  assert.deepEqual(memory.calls, ['discard 2048 1024', 'zero 1536 2560']);
  const protectedDisk = new ScsiDisk({ ...options(memory), readOnly: true });
  assert.deepEqual(run(protectedDisk, [0x2a, 0, 0, 0, 0, 1, 0, 0, 1], 0, new Uint8Array(512)).sense, [7, 0x27, 0]);
});

test('CD: blocks of 2048 bytes, a tray that opens', () => {
  const cd = new ScsiCd(options(new Memory()));
  assert.deepEqual([...run(cd, [0x25], 8).bytes], [0, 0, 0, BLOCKS / 4 - 1, 0, 0, 8, 0]);
  assert.equal(run(cd, [0x28, 0, 0, 0, 0, 1, 0, 0, 1], 2048).bytes[0], 4);
  assert.equal(run(cd, [0x43, 0, 0, 0, 0, 0, 0, 0, 99], 99).bytes[2], 1);
  run(cd, [0x1e, 0, 0, 0, 1]);
  assert.deepEqual(run(cd, [0x1b, 0, 0, 0, 2]).sense, [5, 0x53, 2], 'locked');
  run(cd, [0x1e]);
  run(cd, [0x1b, 0, 0, 0, 2]);
  assert.deepEqual(run(cd, [0x00]).sense, [2, 0x3a, 0]);
  assert.deepEqual(run(new ScsiCd(options(null)), [0x25], 8).sense, [2, 0x3a, 0]);
});
