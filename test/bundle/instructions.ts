/** What a bundle is made of whose translator is looked at. */
export { X86_ISA } from '../../src/isa/x86/isa.ts';
