/** What is published: JavaScript in few files, whose parts find each other. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { build } from '../scripts/build.ts';
import type { Isa, IsaOrigin } from '../src/isa/isa.ts';

test('the compiler in a thread of its own finds the instruction set by the address that a bundle gives it', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'virelay-bundle-'));
  try {
    await build(folder, ['test/bundle/instructions.ts']);
    const { X86_ISA } = (await import(pathToFileURL(join(folder, 'instructions.js')).href)) as { X86_ISA: { origin: IsaOrigin } };
    const { module, argument } = X86_ISA.origin;
    const { makeIsa } = (await import(module)) as { makeIsa(argument: unknown): Isa };
    assert.deepEqual(makeIsa(argument).origin, X86_ISA.origin);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
