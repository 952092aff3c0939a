/** Code that is in no guest's memory, as the source of a region: see Isa.rehearsal. */
import type { Builder } from '../ir/builder.ts';
import type { Isa } from '../isa/isa.ts';
import { MAX_BLOCK_INSNS } from './blocks.ts';
import { PageReader } from './page-reader.ts';
import { constantTargets, takeBlock } from './region.ts';
import type { RegionBlock, RegionSource } from './region.ts';

export class RehearsalSource implements RegionSource {
  private readonly isa: Isa;
  private readonly builder: Builder;
  private readonly reader: PageReader;

  /** @param isa one with a rehearsal */
  constructor(isa: Isa, builder: Builder) {
    this.isa = isa;
    this.builder = builder;
    this.reader = new PageReader(isa.rehearsal!.code, () => -1);
  }

  translate(offset: number, ctx: number): RegionBlock | null {
    const { isa, builder: b, reader } = this;
    const { code, flags } = isa.rehearsal!;
    if (offset < 0 || offset >= code.length) return null;
    b.reset(ctx);
    reader.begin(offset, offset, 0, offset);
    isa.translate(b, reader, flags, MAX_BLOCK_INSNS);
    return takeBlock(b, false, constantTargets(b.words, b.count));
  }

  worthwhile(): boolean {
    return true;
  }
}
