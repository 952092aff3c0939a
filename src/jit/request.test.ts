/** Requests on their way to a compiler. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readRequests, writeRequests } from './request.ts';
import type { RegionRequest } from './request.ts';

function request(first: number): RegionRequest {
  const places = { page: first, offset: first + 1, secondPage: first + 2, slot: first + 3 };
  const addresses = { low: first + 4, high: first + 5, tlb: first + 6, fallbackCell: first + 7, guards: first + 8 };
  return { ...places, ...addresses, block: first + 9, flags: first + 10, key: first + 11, epoch: first + 12, wide: 1 };
}

test('requests arrive as they were sent', () => {
  const sent = [request(100), { ...request(200), low: 0x80001000 | 0, high: -1, secondPage: -1 }];
  assert.deepEqual(readRequests(writeRequests(sent)), sent);
  assert.deepEqual(readRequests(writeRequests([])), []);
});
