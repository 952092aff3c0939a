/** Memtest86+: a program without a system under it, which looks at each byte of memory many times. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Machine } from 'virelay';
import { packageTree } from '../src/cli/guest-files.ts';
import { SILENT } from '../src/cli/progress.ts';

const MIB = 2 ** 20;
const LIMIT = { timeout: 120_000 };
/** The last test is left out: it waits for minutes for bits to fade. */
const LAST_TEST = '#10 ';

const tree: Promise<{ root: string } | string> = packageTree('memtest86+', async () => ['memtest86+'], SILENT, {
  only: ['./boot/*'],
})
  .then((root) => ({ root }))
  .catch((error: Error) => error.message);

for (const image of ['memtest86+x64.bin', 'memtest86+ia32.bin']) {
  test(`${image} finds no errors`, LIMIT, async (t) => {
    const files = await tree;
    if (typeof files === 'string') return t.skip(files);
    await using machine = await Machine.create({
      memory: 8 * MIB,
      kernel: { name: image, data: readFileSync(join(files.root, 'boot', image)) },
      append: 'console=ttyS0,115200 nosmp',
    });
    const decoder = new TextDecoder();
    let text = '';
    for await (const chunk of machine.serial[0]!.readable) {
      text += decoder.decode(chunk, { stream: true });
      if (text.includes(LAST_TEST)) break;
    }
    assert.match(text, /Memtest86\+ v\d/);
    assert.match(text, /Errors: 0/);
    assert.doesNotMatch(text, /Errors: [1-9]/);
  });
}
