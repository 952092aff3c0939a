import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStackReference } from './stack-reference.ts';

const refers = (bytes: string, nearTop = false, destination = -1): boolean => {
  const list = bytes.split(' ').map((byte) => Number.parseInt(byte, 16));
  const byteAt = (n: number): number => {
    assert.ok(n < list.length, `${bytes}: reads no byte beyond the instruction`);
    return list[n]!;
  };
  return isStackReference(byteAt, nearTop, (register) => register === destination);
};

test('references by RSP and RBP, pushes and pops are to the stack segment', () => {
  for (const bytes of [
    '50',
    '41 5F',
    '66 68 34 12',
    'C3',
    'E8 00 00 00 00',
    'C9',
    '0F A0',
    '48 8B 45 00',
    '8B 04 24',
    '48 8B 44 24 08',
    '8B 44 25 00',
    '65 50',
    '26 8B 04 24',
    '0F B6 45 00',
    '66 0F 38 00 45 00',
    'C5 F8 28 45 00',
    'C4 E2 7D 18 45 00',
    'FF 34 24',
  ])
    assert.ok(refers(bytes), bytes);
});

test('references by other registers, with FS and GS, and by strings are not', () => {
  for (const bytes of [
    '8B 00',
    '41 8B 04 24',
    '41 8B 45 00',
    '64 8B 45 00',
    '8B 05 00 00 00 00',
    'A4',
    'A1 00 00 00 00 00 00 00 00',
    'D7',
    'C4 C2 7D 18 45 00',
    '8B 04 65 00 00 00 00',
    '0F B6 00',
    'FF 20',
  ])
    assert.ok(!refers(bytes), bytes);
});

test('of a push from memory, the address tells which reference it was', () => {
  assert.ok(!refers('FF 30'));
  assert.ok(refers('FF 30', true));
  assert.ok(refers('8F 00', true));
});

test('the source of MOVDIR64B is one when its destination is not what is reported', () => {
  assert.ok(!refers('66 0F 38 F8 45 00'));
  assert.ok(refers('66 0F 38 F8 45 00', false, 0));
  assert.ok(refers('66 44 0F 38 F8 4C 24 40', false, 9));
  assert.ok(!refers('66 0F 38 F8 01', false, 0));
});
