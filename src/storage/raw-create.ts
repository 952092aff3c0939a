/** New raw images. */
import type { Creation } from './create.ts';

const FIRST_BLOCK = 4096;

export const rawCreation: Creation = {
  options: [
    { name: 'size', type: 'size', help: 'Virtual disk size' },
    { name: 'preallocation', type: 'str', help: 'Preallocation mode (allowed values: off, falloc, full)', hidden: true },
    { name: 'nocow', type: 'bool', help: 'Turn off copy-on-write (valid only on btrfs)', hidden: true },
    { name: 'extent_size_hint', type: 'size', help: 'Extent size hint for the image file, 0 to disable', hidden: true },
  ],
  create: async ({ size, preallocation = 'off' }, target) => {
    const mode = String(preallocation);
    if (mode === 'metadata') throw new Error('Unsupported preallocation mode: metadata');
    if (!['off', 'falloc', 'full'].includes(mode)) throw new Error(`Parameter 'preallocation' does not accept value '${mode}'`);
    const file = await target.newFile(target.filename, true);
    try {
      await file.resize(Math.ceil(size / 512) * 512, mode);
      // Whoever opens the file finds out by its first block how requests must be aligned.
      if (mode === 'off' && size > 0) await file.write(0, new Uint8Array(Math.min(FIRST_BLOCK, file.size)));
    } finally {
      await file.close();
    }
  },
};
