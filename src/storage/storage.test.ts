import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BlockFile } from '../host/host.ts';
import { MemoryOverlay } from './overlay.ts';
import { RawFile, RawMemory } from './raw.ts';

/** A file in memory, which may become shorter. */
function file(bytes: number[]): BlockFile & { data: number[] } {
  const opened = {
    data: bytes,
    size: bytes.length,
    read: (offset: number, into: Uint8Array): number => {
      const part = opened.data.slice(offset, offset + into.length);
      into.set(part);
      return part.length;
    },
    write: (offset: number, from: Uint8Array): void =>
      from.forEach((value, i) => {
        opened.data[offset + i] = value;
      }),
    sync: async (): Promise<void> => undefined,
    syncNow: (): void => undefined,
    close: (): void => undefined,
  };
  return opened;
}

test('a last sector that is not whole reads as if zeros followed', () => {
  const raw = new RawFile(file(new Array<number>(700).fill(7)), false);
  assert.equal(raw.size, 1024);
  const sector = new Uint8Array(512).fill(9);
  raw.read(512, sector);
  assert.deepEqual([sector[187], sector[188], sector[511]], [7, 0, 0]);
});

test('a file that has become shorter is an error, as is writing where that is not permitted', () => {
  const opened = file(new Array<number>(1024).fill(7));
  const raw = new RawFile(opened, true);
  assert.throws(() => raw.write(0, new Uint8Array(512)), /read-only/);
  opened.data.length = 600;
  assert.throws(() => raw.read(512, new Uint8Array(512)), /the file ends at byte 600/);
  assert.throws(() => new RawMemory(new Uint8Array(512), true).write(0, new Uint8Array(512)), /read-only/);
});

test('a flush is over when it returns where runs are to repeat', async () => {
  const opened = file(new Array<number>(512).fill(7));
  assert.equal(new RawFile(opened, false, true).flush(), undefined);
  assert.ok(new RawFile(opened, false).flush() instanceof Promise);
});

test('an overlay keeps writes to itself', async () => {
  const data = new Uint8Array(200_000).map((_, i) => i % 251);
  const base = new RawMemory(data.slice(), false);
  const overlay = new MemoryOverlay(base);
  assert.equal(overlay.size, base.size);
  // Across the border of two clusters.
  await overlay.write(65024, new Uint8Array(1024).fill(255));
  const read = new Uint8Array(2048);
  await overlay.read(64512, read);
  assert.deepEqual([read[0], read[511], read[512], read[1535], read[1536]], [64512 % 251, 65023 % 251, 255, 255, 66048 % 251]);
  const under = new Uint8Array(512);
  await base.read(65024, under);
  assert.equal(under[0], 65024 % 251);
});

test('an overlay over a slow backend keeps operations in order', async () => {
  const base = new RawMemory(new Uint8Array(200_000).fill(3), false);
  const slow = new MemoryOverlay({
    size: base.size,
    readOnly: true,
    read: async (offset, into) => base.read(offset, into),
    write: () => {
      throw new Error('never written to');
    },
    flush: () => undefined,
    discard: () => undefined,
    close: () => undefined,
  });
  await slow.write(65024, new Uint8Array(1024).fill(8));
  const read = new Uint8Array(131072);
  await slow.read(0, read);
  assert.deepEqual([read[0], read[65024], read[66047], read[66048]], [3, 8, 8, 3]);
});
