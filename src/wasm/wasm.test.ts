import assert from 'node:assert/strict';
import { test } from 'node:test';
import { F32, F64, I32, I64, NONE, V128 } from '../ir/ops.ts';
import { addressTypeFor, BLOCK, BR_IF, Bytes, DROP, I32_ADD, I64_LOAD, I64_STORE, ModuleWriter } from './wasm.ts';
import { newMemory } from './memory.ts';

function decodeUnsigned(bytes: Bytes): bigint {
  let value = 0n;
  for (let i = 0; i < bytes.length; i++) value |= BigInt(bytes.data[i]! & 127) << BigInt(7 * i);
  return value;
}

const decodeSigned = (bytes: Bytes): bigint => BigInt.asIntN(7 * bytes.length, decodeUnsigned(bytes));

test('unsigned LEB128 up to 2^53', () => {
  for (const value of [0, 1, 127, 128, 16383, 16384, 0x7fffffff, 0x80000000, 0xffffffff, 2 ** 32, 2 ** 35 + 1, 2 ** 53 - 1]) {
    const bytes = new Bytes(1);
    bytes.uleb(value);
    assert.equal(decodeUnsigned(bytes), BigInt(value));
    assert.equal(bytes.length, Math.max(1, Math.ceil(value.toString(2).length / 7)));
    assert.equal(bytes.data[bytes.length - 1]! >> 7, 0);
  }
});

test('signed LEB128 of 32 and 64 bits', () => {
  const edges = [0, 1, -1, 63, 64, -64, -65, 8191, 8192, -8192, -8193, 0x7fffffff, -0x80000000];
  for (const low of edges) {
    const bytes = new Bytes(1);
    bytes.sleb(low);
    assert.equal(decodeSigned(bytes), BigInt(low));
    for (const high of edges) {
      const wide = new Bytes(1);
      wide.sleb64(low, high);
      assert.equal(decodeSigned(wide), BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low >>> 0)));
      assert.ok(wide.length <= 10);
    }
  }
});

function instantiate(
  module: ModuleWriter,
  table: WebAssembly.Table,
  more: Record<string, WebAssembly.ImportValue> = {},
  pages = 1,
): Record<string, (...args: (number | bigint)[]) => number | bigint> {
  const bytes = module.finish();
  assert.ok(WebAssembly.validate(bytes));
  const imports = { memory: newMemory(pages), table, ...more };
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { v: imports }).exports as never;
}

const newTable = (): WebAssembly.Table => new WebAssembly.Table({ initial: 200, element: 'anyfunc' });

test('constants of all sizes arrive', () => {
  const module = new ModuleWriter(1, 1, true);
  const values = [0, 1, -1, 63, 64, -64, -65, 2 ** 31 - 1, -(2 ** 31), 2 ** 32, 2 ** 52 + 3];
  values.forEach((value, i) => {
    const code = module.code();
    code.begin([]);
    code.i64(value | 0, Math.floor(value / 2 ** 32));
    module.export(`c${i}`, module.function([], I64, code));
  });
  const exports = instantiate(module, newTable());
  values.forEach((value, i) => assert.equal(exports[`c${i}`]!(), BigInt(value)));
});

test('locals, hints, blocks, imports and the table', () => {
  const module = new ModuleWriter(1, 1, true);
  const host = module.import('twice', [I32], I32);
  assert.equal(module.import('twice', [I32], I32), host);
  const code = module.code();
  code.begin([I32]);
  // Many locals of changing types: the declarations are longer than a byte, and hints count from them.
  for (let i = 0; i < 300; i++) code.local([I32, I64, F32, F64, V128][i % 5]!);
  const sum = code.local(I32);
  code.block(BLOCK);
  code.get(0);
  code.hint(false);
  code.br(BR_IF, 0);
  code.i32(40);
  code.set(sum);
  code.end();
  code.get(sum);
  code.get(0);
  code.op(I32_ADD);
  code.call(0x10, host);
  const index = module.function([I32], I32, code);
  module.export('run', index);
  module.element(150, index);
  const table = newTable();
  const exports = instantiate(module, table, { twice: (x: number) => 2 * x });
  assert.equal(exports.run!(0), 80);
  assert.equal(exports.run!(5), 10);
  assert.equal((table.get(150) as (x: number) => number)(1), 2);
});

test('imports declared when a later function needs them', () => {
  const module = new ModuleWriter(1, 1, true);
  const calling = (name: string): number => {
    const code = module.code();
    code.begin([I32]);
    code.get(0);
    code.call(0x10, module.import(name, [I32], I32));
    return module.function([I32], I32, code);
  };
  const names = ['twice', 'next', 'twice', 'square'];
  names.forEach((name, i) => {
    const index = calling(name);
    module.export(`f${i}`, index);
    module.element(20 + i, index);
  });
  const table = newTable();
  const functions = { twice: (x: number) => 2 * x, next: (x: number) => x + 1, square: (x: number) => x * x };
  const exports = instantiate(module, table, functions);
  const expected = [14, 8, 14, 49];
  assert.deepEqual(
    names.map((_, i) => exports[`f${i}`]!(7)),
    expected,
  );
  assert.deepEqual(
    names.map((_, i) => (table.get(20 + i) as (x: number) => number)(7)),
    expected,
  );
});

/** `run(address, value)` stores at address + 300 and loads from 308. */
function storeAndLoad(pages: number): (address: bigint, value: bigint) => bigint {
  const module = new ModuleWriter(pages, pages, true);
  const code = module.code();
  code.begin([I64, I64]);
  code.get(0);
  code.toAddress();
  code.get(1);
  code.memory(I64_STORE, 300);
  code.i64(0);
  code.op(DROP);
  code.loadAt(I64_LOAD, 308);
  module.export('run', module.function([I64, I64], I64, code));
  return instantiate(module, newTable(), {}, pages).run as never;
}

test('up to 4 GiB, memory is reached by 32-bit addresses', () => {
  assert.equal(addressTypeFor(65536 * 65536), I32);
  const run = storeAndLoad(1);
  assert.equal(run(8n, 0x1122334455667788n), 0x1122334455667788n);
  assert.throws(() => run(65536n, 0n), WebAssembly.RuntimeError);
  assert.throws(() => run(-8n, 0n), WebAssembly.RuntimeError);
});

test('larger memory is reached by 64-bit addresses', () => {
  const pages = 65537;
  assert.equal(addressTypeFor(pages * 65536), I64);
  const run = storeAndLoad(pages);
  assert.equal(run(8n, 0x1122334455667788n), 0x1122334455667788n);
  run(2n ** 32n, 0n);
  assert.throws(() => run(BigInt(pages) * 65536n, 0n), WebAssembly.RuntimeError);
  assert.throws(() => run(-8n, 0n), WebAssembly.RuntimeError);
});

test('a module without functions is a module', () => {
  const module = new ModuleWriter(1, 1, false);
  assert.ok(WebAssembly.validate(module.finish()));
  const code = module.code();
  code.begin([]);
  module.function([], NONE, code);
  assert.ok(WebAssembly.validate(module.finish()));
});
