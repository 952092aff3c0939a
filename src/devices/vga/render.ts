/** What the VGA's registers and memory amount to on a screen. */
import type { GraphicsScreen, Picture, TextScreen } from '../../machine/interfaces.ts';
import { ATTRIBUTE, BLINK, CRTC, GRAPHICS, GRAPHICS_MODE, SEQ, VBE, VBE_ENABLE, type VgaState } from './registers.ts';

/** Most cells and dots that registers may ask for. */
const MAX_COLUMNS = 512;
const MAX_LINES = 2048;
const CURSOR_OFF = 0x20;
/** In plane 2, one font of 256 glyphs of 32 lines; each line is a byte. */
const GLYPH = 32;
const FONT = 256 * GLYPH;

/** An attribute controller that has been switched off shows nothing. */
const PALETTE_ON = 0x20;
/** Clocking mode, bit 5. */
const SCREEN_OFF = 0x20;

type Source = { s: VgaState; bytes: Uint8Array };

/** Shift modes of the graphics controller: planes, CGA's bit pairs, then a byte a pixel. */
const PLANAR = 0;
const CGA = 1;
const PACKED = 2;

const vbeOn = (s: VgaState): boolean => (s.vbe[VBE.enable]! & VBE_ENABLE.enabled) !== 0;

/** A 32-bit pixel as it lies in memory: red first. */
const rgba = (r: number, g: number, b: number): number => r | (g << 8) | (b << 16) | 0xff000000 | 0;

function linesOf(s: VgaState): number {
  const { crtc } = s;
  const overflow = crtc[CRTC.overflow]!;
  return (crtc[CRTC.verticalEnd]! | ((overflow & 0x02) << 7) | ((overflow & 0x40) << 3)) + 1;
}

const startOf = ({ crtc }: VgaState): number => (crtc[CRTC.startHigh]! << 8) | crtc[CRTC.startLow]!;

/** Colours of the 256 DAC entries. */
function dacColors(s: VgaState): Int32Array {
  const wide = vbeOn(s) && (s.vbe[VBE.enable]! & VBE_ENABLE.dac8) !== 0;
  const level = (value: number): number => (wide ? value : ((value & 63) << 2) | ((value & 63) >> 4));
  return Int32Array.from({ length: 256 }, (_, i) =>
    rgba(level(s.palette[3 * i]!), level(s.palette[3 * i + 1]!), level(s.palette[3 * i + 2]!)),
  );
}

/** Colours of the 16 palette entries. */
function paletteColors(s: VgaState): Int32Array {
  const dac = dacColors(s);
  const { attribute } = s;
  const select = attribute[ATTRIBUTE.color]!;
  const replaced = (attribute[ATTRIBUTE.mode]! & 0x80) !== 0;
  return Int32Array.from({ length: 16 }, (_, i) => {
    const entry = attribute[i]!;
    const index = replaced ? (entry & 0x0f) | ((select & 0x0f) << 4) : (entry & 0x3f) | ((select & 0x0c) << 4);
    return dac[index]!;
  });
}

function isText(s: VgaState): boolean {
  return !vbeOn(s) && (s.graphics[GRAPHICS.misc]! & GRAPHICS_MODE) === 0;
}

function isBlank(s: VgaState): boolean {
  return !vbeOn(s) && ((s.attributeIndex & PALETTE_ON) === 0 || (s.seq[SEQ.clocking]! & SCREEN_OFF) !== 0);
}

const modeOf = (s: VgaState): number => (s.graphics[GRAPHICS.mode]! >> 5) & 3;

/** Does each dot of planes and bit pairs last two dots of the clock? */
const isHalved = (s: VgaState): boolean => !vbeOn(s) && (s.seq[SEQ.clocking]! & 8) !== 0;

export function textOf({ s, bytes }: Source): TextScreen | null {
  if (!isText(s)) return null;
  const { crtc } = s;
  const columns = Math.min(MAX_COLUMNS, crtc[CRTC.displayEnd]! + 1);
  const height = (crtc[CRTC.maxScan]! & 31) + 1;
  const rows = Math.max(1, Math.floor(Math.min(MAX_LINES, linesOf(s)) / height));
  const start = startOf(s);
  const pitch = crtc[CRTC.offset]! * 2;
  const cells = new Uint16Array(columns * rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = ((start + row * pitch + column) * 4) % bytes.length;
      cells[row * columns + column] = bytes[at]! | (bytes[at + 1]! << 8);
    }
  }
  return { columns, rows, cells, cursor: cursorOf(s, start, pitch, columns, rows) };
}

function cursorOf(s: VgaState, start: number, pitch: number, columns: number, rows: number): number {
  const { crtc } = s;
  if ((crtc[CRTC.cursorStart]! & CURSOR_OFF) !== 0) return -1;
  if ((crtc[CRTC.cursorStart]! & 31) > (crtc[CRTC.cursorEnd]! & 31)) return -1;
  const at = ((crtc[CRTC.cursorHigh]! << 8) | crtc[CRTC.cursorLow]!) - start;
  if (at < 0 || pitch === 0) return -1;
  const row = Math.floor(at / pitch);
  const column = at % pitch;
  return row < rows && column < columns ? row * columns + column : -1;
}

/** Null while the adapter shows text. */
export function graphicsOf(s: VgaState): GraphicsScreen | null {
  if (isText(s)) return null;
  if (isBlank(s)) return { width: 0, height: 0 };
  const { width, height } = geometry(s);
  return { width: isHalved(s) && modeOf(s) < PACKED ? 2 * width : width, height };
}

function blankPicture(): Picture {
  const pixels = new Uint8Array(640 * 480 * 4);
  new Uint32Array(pixels.buffer).fill(rgba(0, 0, 0));
  return { width: 640, height: 480, pixels };
}

export function pictureOf(source: Source): Picture {
  const { s } = source;
  if (isBlank(s)) return blankPicture();
  if (vbeOn(s)) return s.vbe[VBE.depth] === 4 ? planarPicture(source) : linearPicture(source);
  if (isText(s)) return textPicture(source);
  switch (modeOf(s)) {
    case PLANAR:
      return planarPicture(source);
    case CGA:
      return cgaPicture(source);
    default:
      return packedPicture(source);
  }
}

/** A picture to draw into, as 32-bit pixels. */
function canvas(width: number, height: number) {
  const dots = new Int32Array(width * height);
  return { dots, picture: { width, height, pixels: new Uint8Array(dots.buffer) } };
}

// --- Text.

/** Two fonts of plane 2, which bit 3 of the attribute chooses between. */
function fontsOf(s: VgaState): [number, number] {
  const select = s.seq[SEQ.fonts]!;
  // Blocks 0 to 3 are 16 KiB apart, 4 to 7 lie 8 KiB after them.
  const place = (low: number, high: number): number => low * 2 * FONT + high * FONT;
  return [place(select & 3, (select >> 4) & 1), place((select >> 2) & 3, (select >> 5) & 1)];
}

function textPicture(source: Source): Picture {
  const { s, bytes } = source;
  const screen = textOf(source)!;
  const { columns, rows, cells, cursor } = screen;
  const height = (s.crtc[CRTC.maxScan]! & 31) + 1;
  const cellWidth = (s.seq[SEQ.clocking]! & 1) !== 0 ? 8 : 9;
  const { dots, picture } = canvas(columns * cellWidth, rows * height);
  const colors = paletteColors(s);
  const fonts = fontsOf(s);
  const mode = s.attribute[ATTRIBUTE.mode]!;
  cells.forEach((cell, i) => {
    const attribute = cell >> 8;
    const code = cell & 0xff;
    const front = colors[attribute & 15]!;
    const back = colors[(attribute >> 4) & ((mode & BLINK) !== 0 ? 7 : 15)]!;
    const glyph = fonts[(attribute >> 3) & 1]! + code * GLYPH;
    // Line-drawing characters continue into the ninth column.
    const joined = cellWidth === 9 && code >= 0xc0 && code <= 0xdf && (mode & 4) !== 0;
    let at = Math.floor(i / columns) * height * picture.width + (i % columns) * cellWidth;
    for (let line = 0; line < height; line++, at += picture.width) {
      let bits = bytes[(glyph + line) * 4 + 2]! << 1;
      if (joined) bits |= (bits >> 1) & 1;
      if (i === cursor && inCursor(s, line)) bits = 0x1ff;
      for (let x = 0; x < cellWidth; x++) dots[at + x] = (bits & (0x100 >> x)) !== 0 ? front : back;
    }
  });
  return picture;
}

function inCursor({ crtc }: VgaState, line: number): boolean {
  return line >= (crtc[CRTC.cursorStart]! & 31) && line <= (crtc[CRTC.cursorEnd]! & 31);
}

// --- Graphics.

/** Lines shown, how often each is repeated, and the bytes from one to the next. */
function geometry(s: VgaState) {
  const { crtc, vbe } = s;
  if (vbeOn(s)) {
    const depth = vbe[VBE.depth]!;
    const pixel = depth === 4 ? 0 : (depth + 7) >> 3;
    const pitch = depth === 4 ? vbe[VBE.virtualWidth]! >> 1 : vbe[VBE.virtualWidth]! * pixel;
    const start = vbe[VBE.y]! * pitch + (depth === 4 ? (vbe[VBE.x]! >> 3) * 4 : vbe[VBE.x]! * pixel);
    return { width: vbe[VBE.width]!, height: vbe[VBE.height]!, repeat: 1, pitch, start };
  }
  const scan = crtc[CRTC.maxScan]!;
  const repeat = ((scan & 31) + 1) * ((scan & 0x80) !== 0 ? 2 : 1);
  const width = Math.min(MAX_COLUMNS, crtc[CRTC.displayEnd]! + 1) * 8;
  const height = Math.min(MAX_LINES, linesOf(s));
  return { width, height, repeat, pitch: crtc[CRTC.offset]! << 3, start: startOf(s) * 4 };
}

/** Four planes, a bit of each for a pixel. */
function planarPicture({ s, bytes }: Source): Picture {
  const { width, height, repeat, pitch, start } = geometry(s);
  const half = isHalved(s);
  const { dots, picture } = canvas(half ? 2 * width : width, height);
  const colors = paletteColors(s);
  const enabled = vbeOn(s) ? 15 : s.attribute[ATTRIBUTE.planes]! & 15;
  let out = 0;
  for (let y = 0; y < height; y++) {
    const line = start + Math.floor(y / repeat) * pitch;
    for (let x = 0; x < width; x++) {
      const at = (line + (x >> 3) * 4) % bytes.length;
      const bit = 7 - (x & 7);
      let index = 0;
      for (let plane = 0; plane < 4; plane++) index |= ((bytes[at + plane]! >> bit) & 1) << plane;
      const color = colors[index & enabled]!;
      dots[out++] = color;
      if (half) dots[out++] = color;
    }
  }
  return picture;
}

/** Two bits a pixel, as the CGA had them: even and odd lines in two halves, bytes in planes 0 and 1. */
function cgaPicture({ s, bytes }: Source): Picture {
  const { width, height, repeat, pitch, start } = geometry(s);
  const half = isHalved(s);
  const { dots, picture } = canvas(half ? 2 * width : width, height);
  const colors = paletteColors(s);
  const interleaved = (s.crtc[CRTC.mode]! & 1) === 0;
  let out = 0;
  for (let y = 0; y < height; y++) {
    const row = Math.floor(y / repeat);
    const line = start + (interleaved ? (row >> 1) * 2 * (pitch >> 1) + (row & 1) * 0x8000 : row * pitch);
    for (let x = 0; x < width; x++) {
      const place = x >> 2;
      const at = (line + (place >> 1) * 4 + (place & 1)) % bytes.length;
      const color = colors[(bytes[at]! >> (6 - 2 * (x & 3))) & 3]!;
      dots[out++] = color;
      if (half) dots[out++] = color;
    }
  }
  return picture;
}

/** A byte a pixel, each of which lasts two dots. */
function packedPicture({ s, bytes }: Source): Picture {
  const { width, height, repeat, pitch, start } = geometry(s);
  const { dots, picture } = canvas(width, height);
  const colors = dacColors(s);
  let out = 0;
  for (let y = 0; y < height; y++) {
    const line = start + Math.floor(y / repeat) * pitch;
    for (let x = 0; x < width; x++) dots[out++] = colors[bytes[(line + (x >> 1)) % bytes.length]!]!;
  }
  return picture;
}

/** Modes of the Bochs interface with 8 to 32 bits a pixel. */
function linearPicture({ s, bytes }: Source): Picture {
  const { width, height, pitch, start } = geometry(s);
  const { dots, picture } = canvas(width, height);
  const depth = s.vbe[VBE.depth]!;
  const size = (depth + 7) >> 3;
  const colors = dacColors(s);
  const pixel = depth === 8 ? (at: number) => colors[bytes[at]!]! : directColor(bytes, depth);
  let out = 0;
  for (let y = 0; y < height; y++) {
    let at = start + y * pitch;
    for (let x = 0; x < width; x++, at += size) {
      dots[out++] = at + size <= bytes.length ? pixel(at) : 0xff000000 | 0;
    }
  }
  return picture;
}

function directColor(bytes: Uint8Array, depth: number): (at: number) => number {
  const word = (at: number): number => bytes[at]! | (bytes[at + 1]! << 8);
  const five = (value: number): number => ((value & 31) << 3) | ((value & 31) >> 2);
  const six = (value: number): number => ((value & 63) << 2) | ((value & 63) >> 4);
  if (depth === 15) return (at) => rgba(five(word(at) >> 10), five(word(at) >> 5), five(word(at)));
  if (depth === 16) return (at) => rgba(five(word(at) >> 11), six(word(at) >> 5), five(word(at)));
  return (at) => rgba(bytes[at + 2]!, bytes[at + 1]!, bytes[at]!);
}
