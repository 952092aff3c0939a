import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StateValue } from '../machine/interfaces.ts';
import { ByteReader, ByteWriter, type Fields, MAX_DEPTH } from './values.ts';

const bytesOf = (fields: Fields): Uint8Array => {
  const out = new ByteWriter();
  out.fields(fields);
  return out.written.slice();
};
const read = (bytes: Uint8Array): Fields => new ByteReader(bytes).onlyFields();

function randomValues(seed: number) {
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  const word = (): number => random(2 ** 16) * 2 ** 16 + random(2 ** 16);
  const value = (depth: number): StateValue => {
    switch (random(depth < 4 ? 10 : 8)) {
      case 0:
        return random(2) === 0;
      case 1:
        return random(300) - 150;
      case 2:
        return (word() * 2 ** 21 + word()) * (random(2) === 0 ? 1 : -1);
      case 3:
        return [0.5, -1e300, 5e-324, -0, 2 ** 53, Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER][random(7)]!;
      case 4:
        return ['', 'a', 'näme', '\0', 'x'.repeat(random(300))][random(5)]!;
      case 5:
        return Uint8Array.from({ length: random(300) }, () => random(256));
      case 6:
        return BigInt(word()) ** BigInt(random(8)) * (random(2) === 0 ? 1n : -1n);
      case 7:
        return BigInt(random(3) - 1);
      case 8:
        return Array.from({ length: random(6) }, () => value(depth + 1));
      default:
        return record(depth + 1);
    }
  };
  const record = (depth: number): Fields =>
    Object.fromEntries(Array.from({ length: random(6) }, (_, i) => [`${i}${'n'.repeat(random(254))}`, value(depth)]));
  return { record, random };
}

test('values of every kind come back as they were', () => {
  for (let seed = 1; seed <= 500; seed++) {
    const fields = randomValues(seed).record(0);
    assert.deepEqual(read(bytesOf(fields)), fields);
  }
});

test('damaged values are refused with a line, or are other values', () => {
  for (let seed = 1; seed <= 2000; seed++) {
    const { record, random } = randomValues(seed);
    const bytes = bytesOf({ first: record(0), list: [1, 'two', 3n], more: record(0) });
    bytes[random(bytes.length)] = random(256);
    try {
      read(bytes.subarray(0, random(3) === 0 ? random(bytes.length) : bytes.length));
    } catch (error) {
      assert.match((error as Error).message, /^(field ".*"|what it holds|\d+ bytes follow)/s);
    }
  }
});

test('what is wrong is named by its field', () => {
  const bad = (bytes: readonly number[], message: RegExp): void => assert.throws(() => read(Uint8Array.from(bytes)), { message });
  bad([1, 1, 97, 99], /^field "a" has a value of kind 99, which is not known$/);
  bad([2, 1, 97, 0, 1, 97, 0], /^field "a" is there twice$/);
  bad([1, 1, 97, 10, 1, 1, 98, 5, 9, 120], /^field "a\.b" ends 8 bytes too early$/);
  bad([1, 1, 97, 6, 0xff, 0xff, 0xff, 0xff, 0x7f], /^field "a" ends \d+ bytes too early$/);
  bad([1, 1, 97, 2, ...new Array<number>(9).fill(0xff)], /^field "a" is a number/);
  bad([1, 1, 97, 5, 1, 0xff], /^field "a" has a text that is not UTF-8$/);
  bad([1, 0], /^what it holds has a name of 0 bytes$/);
  bad([0, 1], /^1 bytes follow the last field$/);
  bad([1, 1, 97, 9, 0xff, 0xff, 0xff, 0x7f], /^field "a" ends 1 bytes too early$/);
  bad([1, 1, 97, ...Array.from({ length: 40 }, () => [9, 1]).flat(), 0], /^field "a" is nested too deeply$/);
});

test('nesting goes as deep as is said', () => {
  let value: StateValue = 1;
  for (let i = 0; i < MAX_DEPTH - 1; i++) value = [value];
  assert.deepEqual(read(bytesOf({ value })), { value });
  assert.throws(() => read(bytesOf({ value: [value] })), /nested too deeply/);
});

test('names that objects have anyhow are names like others', () => {
  const bytes = Uint8Array.from([1, 9, ...new TextEncoder().encode('__proto__'), 10, 1, 1, 97, 1]);
  const fields = read(bytes);
  assert.deepEqual(Object.keys(fields), ['__proto__']);
  assert.equal(({} as { a?: unknown }).a, undefined);
  assert.equal(Object.getPrototypeOf(fields), Object.prototype);
});
