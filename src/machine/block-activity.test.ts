import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlockActivity } from './block-activity.ts';
import type { BlockBackend, Completion } from './interfaces.ts';

class Scripted implements BlockBackend {
  readonly size = 4096;
  readonly readOnly = false;
  next: Completion = undefined;
  read = (): Completion => this.next;
  write = (): Completion => this.next;
  flush = (): Completion => this.next;
  discard = (): Completion => this.next;
  close = (): Completion => undefined;
}

test('requests count from their beginning to their end, however they end; those that end at once never', async () => {
  const activity = new BlockActivity();
  let begun = 0;
  activity.onBusy = () => begun++;
  const disk = new Scripted();
  const watched = activity.watch(disk);
  assert.equal(watched.read(0, new Uint8Array(512)), undefined);
  assert.equal(activity.busy, false);
  const first = Promise.withResolvers<void>();
  const second = Promise.withResolvers<void>();
  disk.next = first.promise;
  const reading = watched.read(0, new Uint8Array(512));
  disk.next = second.promise;
  const flushing = watched.flush();
  assert.equal(activity.busy, true);
  assert.equal(begun, 1);
  first.resolve();
  await reading;
  assert.equal(activity.busy, true);
  second.reject(new Error('no space'));
  await assert.rejects(async () => flushing, /no space/);
  await Promise.resolve();
  assert.equal(activity.busy, false);
});

test('a backend that writes no zeros by itself does not seem to', () => {
  const activity = new BlockActivity();
  assert.equal(activity.watch(new Scripted()).writeZeroes, undefined);
  const able = Object.assign(new Scripted(), { writeZeroes: () => undefined });
  assert.equal(typeof activity.watch(able).writeZeroes, 'function');
});
