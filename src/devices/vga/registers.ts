/**
 * The VGA's registers: IBM PS/2 Hardware Interface Technical Reference, "Video subsystem", and
 * what the Bochs display interface adds (ports 1CEh to 1D0h).
 */

/** Sequencer registers by index. */
export const SEQ = { clocking: 1, mapMask: 2, fonts: 3, memoryMode: 4 } as const;
/** Graphics controller registers by index. */
export const GRAPHICS = {
  setReset: 0,
  enableSetReset: 1,
  compare: 2,
  rotate: 3,
  readMap: 4,
  mode: 5,
  misc: 6,
  dontCare: 7,
  bitMask: 8,
} as const;
/** CRT controller registers by index. */
export const CRTC = {
  displayEnd: 0x01,
  overflow: 0x07,
  maxScan: 0x09,
  cursorStart: 0x0a,
  cursorEnd: 0x0b,
  startHigh: 0x0c,
  startLow: 0x0d,
  cursorHigh: 0x0e,
  cursorLow: 0x0f,
  verticalSyncEnd: 0x11,
  verticalEnd: 0x12,
  offset: 0x13,
  mode: 0x17,
  lineCompare: 0x18,
} as const;
/** Attribute controller registers by index; 0 to 15 are the palette. */
export const ATTRIBUTE = { mode: 0x10, overscan: 0x11, planes: 0x12, panning: 0x13, color: 0x14 } as const;

export const CHAIN_4 = 0x08;
export const GRAPHICS_MODE = 0x01;
export const BLINK = 0x08;
const CRTC_PROTECT = 0x80;
const MISC_COLOR = 0x01;
/** Input status 1: not displaying, and vertical retrace. */
const STATUS_BLANK = 0x01;
const STATUS_RETRACE = 0x08;
const SEQ_MASKS = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff] as const;
const GRAPHICS_MASKS = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff] as const;

/** Registers of the Bochs display interface by index. */
export const VBE = {
  id: 0,
  width: 1,
  height: 2,
  depth: 3,
  enable: 4,
  bank: 5,
  virtualWidth: 6,
  virtualHeight: 7,
  x: 8,
  y: 9,
  memory: 10,
} as const;
export const VBE_ENABLE = { enabled: 0x01, capabilities: 0x02, dac8: 0x20, linear: 0x40, keep: 0x80 } as const;
const VBE_ID = 0xb0c5;
const VBE_OLDEST_ID = 0xb0c0;
export const VBE_MAX_WIDTH = 16000;
export const VBE_MAX_HEIGHT = 12000;
export const VBE_MAX_DEPTH = 32;

export function vgaPowerOn() {
  return {
    misc: 0,
    feature: 0,
    status: 0,
    seqIndex: 0,
    seq: new Uint8Array(8),
    graphicsIndex: 0,
    graphics: new Uint8Array(16),
    crtcIndex: 0,
    crtc: new Uint8Array(256),
    attributeIndex: 0,
    attribute: new Uint8Array(32),
    attributeData: false,
    dacMask: 0xff,
    dacRead: 0,
    dacWrite: 0,
    dacStep: 0,
    dacReading: false,
    dacLatch: new Uint8Array(3),
    palette: new Uint8Array(768),
    /** The four bytes of the planes that the last read has fetched. */
    latch: new Uint8Array(4),
    vbeIndex: 0,
    vbe: [VBE_ID, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  };
}
export type VgaState = ReturnType<typeof vgaPowerOn>;

export type RegisterEvents = {
  /** How memory is seen through the window at A0000h may have changed. */
  windowChanged(): void;
  /** A mode of the Bochs interface begins. @param clear its memory is to be zeroed */
  modeSet(clear: boolean): void;
};

export class VgaRegisters {
  private readonly s: VgaState;
  private readonly events: RegisterEvents;
  private readonly memorySize: number;

  /** @param memorySize bytes of video memory */
  constructor(state: VgaState, memorySize: number, events: RegisterEvents) {
    this.s = state;
    this.memorySize = memorySize;
    this.events = events;
  }

  /** @param port 3B0h to 3DFh */
  read(port: number): number {
    const { s } = this;
    if (this.absent(port)) return 0xff;
    switch (port) {
      case 0x3c0:
        return s.attributeData ? 0 : s.attributeIndex;
      case 0x3c1:
        return s.attribute[s.attributeIndex & 0x1f]!;
      case 0x3c2:
        return 0x10;
      case 0x3c4:
        return s.seqIndex;
      case 0x3c5:
        return s.seq[s.seqIndex]!;
      case 0x3c6:
        return s.dacMask;
      case 0x3c7:
        return s.dacReading ? 3 : 0;
      case 0x3c8:
        return s.dacWrite;
      case 0x3c9:
        return this.readDac();
      case 0x3ca:
        return s.feature;
      case 0x3cc:
        return s.misc;
      case 0x3ce:
        return s.graphicsIndex;
      case 0x3cf:
        return s.graphics[s.graphicsIndex]!;
      case 0x3b4:
      case 0x3d4:
        return s.crtcIndex;
      case 0x3b5:
      case 0x3d5:
        return s.crtc[s.crtcIndex]!;
      case 0x3ba:
      case 0x3da:
        // Whoever waits for a retrace to begin or end need not wait long.
        s.status ^= STATUS_RETRACE | STATUS_BLANK;
        s.attributeData = false;
        return s.status;
      default:
        return 0;
    }
  }

  write(port: number, value: number): void {
    const { s } = this;
    if (this.absent(port)) return;
    switch (port) {
      case 0x3c0:
        this.writeAttribute(value);
        break;
      case 0x3c2:
        s.misc = value & ~0x10;
        break;
      case 0x3c4:
        s.seqIndex = value & 7;
        break;
      case 0x3c5:
        s.seq[s.seqIndex] = value & SEQ_MASKS[s.seqIndex]!;
        this.events.windowChanged();
        break;
      case 0x3c6:
        s.dacMask = value;
        break;
      case 0x3c7:
        s.dacRead = value;
        s.dacStep = 0;
        s.dacReading = true;
        break;
      case 0x3c8:
        s.dacWrite = value;
        s.dacStep = 0;
        s.dacReading = false;
        break;
      case 0x3c9:
        this.writeDac(value);
        break;
      case 0x3ce:
        s.graphicsIndex = value & 15;
        break;
      case 0x3cf:
        s.graphics[s.graphicsIndex] = value & (GRAPHICS_MASKS[s.graphicsIndex] ?? 0);
        this.events.windowChanged();
        break;
      case 0x3b4:
      case 0x3d4:
        s.crtcIndex = value;
        break;
      case 0x3b5:
      case 0x3d5:
        this.writeCrtc(value);
        break;
      case 0x3ba:
      case 0x3da:
        s.feature = value & 0x10;
        break;
      default:
        break;
    }
  }

  /** Of the two sets of CRT controller ports only one is there. */
  private absent(port: number): boolean {
    const color = (this.s.misc & MISC_COLOR) !== 0;
    return color ? port >= 0x3b0 && port <= 0x3bf : port >= 0x3d0 && port <= 0x3df;
  }

  private writeAttribute(value: number): void {
    const { s } = this;
    if (!s.attributeData) s.attributeIndex = value & 0x3f;
    else {
      const index = s.attributeIndex & 0x1f;
      s.attribute[index] = index < 16 ? value & 0x3f : value;
    }
    s.attributeData = !s.attributeData;
  }

  private writeCrtc(value: number): void {
    const { s } = this;
    const index = s.crtcIndex;
    if (index <= 7 && (s.crtc[CRTC.verticalSyncEnd]! & CRTC_PROTECT) !== 0) {
      // Of the protected registers only the line compare's bit can be written.
      if (index === CRTC.overflow) s.crtc[7] = (s.crtc[7]! & ~0x10) | (value & 0x10);
      return;
    }
    s.crtc[index] = value;
  }

  private readDac(): number {
    const { s } = this;
    const value = s.palette[s.dacRead * 3 + s.dacStep]!;
    if (++s.dacStep === 3) {
      s.dacStep = 0;
      s.dacRead = (s.dacRead + 1) & 0xff;
    }
    return value;
  }

  private writeDac(value: number): void {
    const { s } = this;
    s.dacLatch[s.dacStep] = value;
    if (++s.dacStep < 3) return;
    s.palette.set(s.dacLatch, s.dacWrite * 3);
    s.dacStep = 0;
    s.dacWrite = (s.dacWrite + 1) & 0xff;
  }

  // --- The Bochs display interface.

  readVbe(index: number): number {
    const { vbe } = this.s;
    if (index === VBE.memory) return this.memorySize / 65536;
    if ((vbe[VBE.enable]! & VBE_ENABLE.capabilities) !== 0) {
      if (index === VBE.width) return VBE_MAX_WIDTH;
      if (index === VBE.height) return VBE_MAX_HEIGHT;
      if (index === VBE.depth) return VBE_MAX_DEPTH;
    }
    return vbe[index] ?? 0;
  }

  writeVbe(index: number, value: number): void {
    const { vbe } = this.s;
    const enabled = (vbe[VBE.enable]! & VBE_ENABLE.enabled) !== 0;
    switch (index) {
      case VBE.id:
        if (value >= VBE_OLDEST_ID && value <= VBE_ID) vbe[index] = value;
        break;
      case VBE.width:
      case VBE.height:
      case VBE.depth:
        if (enabled) break;
        vbe[index] = value & 0xffff;
        break;
      case VBE.bank:
        vbe[index] = value & (this.memorySize / 65536 - 1);
        this.events.windowChanged();
        break;
      case VBE.enable:
        this.enableVbe(value, enabled);
        break;
      case VBE.virtualWidth:
        vbe[index] = Math.max(value & 0xffff, vbe[VBE.width]!);
        this.fitVirtual();
        break;
      case VBE.x:
      case VBE.y:
        vbe[index] = value & 0xffff;
        break;
      default:
        break;
    }
  }

  private enableVbe(value: number, was: boolean): void {
    const { s } = this;
    const { vbe } = s;
    vbe[VBE.enable] = value & 0xff;
    if ((value & VBE_ENABLE.enabled) !== 0 && !was) {
      this.fitMode();
      vbe[VBE.virtualWidth] = vbe[VBE.width]!;
      vbe[VBE.x] = vbe[VBE.y] = 0;
      this.fitVirtual();
      this.setLegacyRegisters();
      this.events.modeSet((value & VBE_ENABLE.keep) === 0);
    }
    this.events.windowChanged();
  }

  /** Whatever was asked for, what is shown lies in memory. */
  private fitMode(): void {
    const { vbe } = this.s;
    const depths = [4, 8, 15, 16, 24, 32];
    if (!depths.includes(vbe[VBE.depth]!)) vbe[VBE.depth] = 8;
    vbe[VBE.width] = Math.min(VBE_MAX_WIDTH, Math.max(8, vbe[VBE.width]! & ~7));
    const lines = Math.floor(this.memorySize / this.bytesPerLine(vbe[VBE.width]!));
    vbe[VBE.height] = Math.min(VBE_MAX_HEIGHT, lines, Math.max(1, vbe[VBE.height]!));
  }

  private fitVirtual(): void {
    const { vbe } = this.s;
    vbe[VBE.virtualHeight] = Math.min(
      0xffff,
      Math.floor(this.memorySize / Math.max(1, this.bytesPerLine(vbe[VBE.virtualWidth]!))),
    );
  }

  /** Four bits a pixel take a byte in each of the four planes for eight. */
  bytesPerLine(width: number): number {
    const depth = this.s.vbe[VBE.depth]!;
    return depth === 4 ? width >> 1 : width * ((depth + 7) >> 3);
  }

  /** Programs that know of VGA registers only find them fitting the mode. */
  private setLegacyRegisters(): void {
    const { seq, graphics, crtc, vbe } = this.s;
    const planar = vbe[VBE.depth] === 4;
    const lines = vbe[VBE.height]! - 1;
    graphics[GRAPHICS.misc] = (graphics[GRAPHICS.misc]! & ~0x0c) | 0x05;
    graphics[GRAPHICS.mode] = (graphics[GRAPHICS.mode]! & ~0x60) | (planar ? 0 : 0x40);
    crtc[CRTC.mode] = crtc[CRTC.mode]! | 3;
    crtc[CRTC.offset] = this.bytesPerLine(vbe[VBE.virtualWidth]!) >> 3;
    crtc[CRTC.displayEnd] = (vbe[VBE.width]! >> 3) - 1;
    crtc[CRTC.verticalEnd] = lines;
    crtc[CRTC.overflow] = (crtc[CRTC.overflow]! & ~0x42) | ((lines >> 7) & 0x02) | ((lines >> 3) & 0x40);
    crtc[CRTC.lineCompare] = 0xff;
    crtc[CRTC.overflow] = crtc[CRTC.overflow]! | 0x10;
    crtc[CRTC.maxScan] = (crtc[CRTC.maxScan]! & ~0x9f) | 0x40;
    if (planar) {
      seq[SEQ.clocking] = seq[SEQ.clocking]! & ~0x08;
      seq[SEQ.memoryMode] = seq[SEQ.memoryMode]! & ~CHAIN_4;
    } else {
      seq[SEQ.memoryMode] = seq[SEQ.memoryMode]! | CHAIN_4;
      seq[SEQ.mapMask] = 0x0f;
    }
  }
}
