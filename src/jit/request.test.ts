/** Requests on their way to a compiler. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readRequests, writeRequests } from './request.ts';
import type { RegionRequest } from './request.ts';

function request(first: number): RegionRequest {
  const [low, high, flags, key, page, offset, secondPage, tlb, epoch, slot, fallbackCell, guards] = Array.from(
    { length: 12 },
    (_, i) => first + i,
  ) as [number, number, number, number, number, number, number, number, number, number, number, number];
  return { low, high, flags, key, page, offset, secondPage, tlb, epoch, slot, fallbackCell, guards };
}

test('requests arrive as they were sent', () => {
  const sent = [request(100), { ...request(200), low: 0x80001000 | 0, high: -1, secondPage: -1 }];
  assert.deepEqual(readRequests(writeRequests(sent)), sent);
  assert.deepEqual(readRequests(writeRequests([])), []);
});
