/** Which frames a network device passes on to its driver: virtio 1.2, sections 5.1.6.5.1 to 5.1.6.5.3. */
import { StateBlock } from '../state.ts';

/** Addresses of each kind that are told apart; more make the filter let all of that kind through. */
const TABLE = 64;
const VLANS = 4096;
const VLAN_TYPE = 0x8100;
const MAC = 6;

const powerOn = () => ({
  promiscuous: true,
  allMulticast: false,
  allUnicast: false,
  noMulticast: false,
  noUnicast: false,
  noBroadcast: false,
  mac: new Uint8Array(MAC),
  unicast: new Uint8Array(TABLE * MAC),
  unicastCount: 0,
  unicastOverflow: false,
  multicast: new Uint8Array(TABLE * MAC),
  multicastCount: 0,
  multicastOverflow: false,
  /** Frames are also told apart by VLAN, a bit each. */
  vlans: new Uint8Array(VLANS / 8),
});

/** Switches by the number of their command. */
const SWITCHES = ['promiscuous', 'allMulticast', 'allUnicast', 'noMulticast', 'noUnicast', 'noBroadcast'] as const;

export class NetFilter {
  readonly state: StateBlock<ReturnType<typeof powerOn>>;
  private readonly own: Uint8Array;
  /** Set when the driver has the feature. */
  filtersVlans = false;

  constructor(id: string, mac: Uint8Array) {
    this.own = mac;
    this.state = new StateBlock(id, 1, powerOn, { unicastCount: TABLE, multicastCount: TABLE });
    this.reset();
  }

  reset(): void {
    this.state.reset();
    this.state.value.mac.set(this.own);
    this.filtersVlans = false;
  }

  get mac(): Uint8Array {
    return this.state.value.mac;
  }

  /** @returns whether there is such a switch */
  set(index: number, on: boolean): boolean {
    const name = SWITCHES[index];
    if (name === undefined) return false;
    this.state.value[name] = on;
    return true;
  }

  setVlan(id: number, on: boolean): boolean {
    if (id >= VLANS) return false;
    const { vlans } = this.state.value;
    const bit = 1 << (id & 7);
    vlans[id >> 3] = on ? vlans[id >> 3]! | bit : vlans[id >> 3]! & ~bit;
    return true;
  }

  /** Both tables of addresses, each a count and so many addresses. @returns whether they were whole */
  setTables(bytes: Uint8Array): boolean {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { value } = this.state;
    const first = tableAt(view, 0);
    const second = first === null ? null : tableAt(view, first.end);
    if (first === null || second === null || second.end !== bytes.length) return false;
    const put = (into: Uint8Array, { from, count }: Table): number => {
      into.fill(0);
      if (count > TABLE) return 0;
      into.set(bytes.subarray(from, from + count * MAC));
      return count;
    };
    value.unicastOverflow = first.count > TABLE;
    value.unicastCount = put(value.unicast, first);
    value.multicastOverflow = second.count > TABLE;
    value.multicastCount = put(value.multicast, second);
    return true;
  }

  passes(frame: Uint8Array): boolean {
    const { value } = this.state;
    if (value.promiscuous) return true;
    if (this.filtersVlans && frame.length >= 16 && ((frame[12]! << 8) | frame[13]!) === VLAN_TYPE) {
      const id = ((frame[14]! & 0x0f) << 8) | frame[15]!;
      if ((value.vlans[id >> 3]! & (1 << (id & 7))) === 0) return false;
    }
    if ((frame[0]! & 1) !== 0) {
      if (isBroadcast(frame)) return !value.noBroadcast;
      if (value.noMulticast) return false;
      if (value.allMulticast || value.multicastOverflow) return true;
      return inTable(value.multicast, value.multicastCount, frame);
    }
    if (value.noUnicast) return false;
    if (value.allUnicast || value.unicastOverflow || same(value.mac, 0, frame)) return true;
    return inTable(value.unicast, value.unicastCount, frame);
  }
}

type Table = { from: number; count: number; end: number };

function tableAt(view: DataView, at: number): Table | null {
  if (at + 4 > view.byteLength) return null;
  const count = view.getUint32(at, true);
  const end = at + 4 + count * MAC;
  return end > view.byteLength ? null : { from: at + 4, count, end };
}

function inTable(table: Uint8Array, count: number, frame: Uint8Array): boolean {
  for (let i = 0; i < count; i++) if (same(table, i * MAC, frame)) return true;
  return false;
}

function same(table: Uint8Array, at: number, frame: Uint8Array): boolean {
  for (let i = 0; i < MAC; i++) if (table[at + i] !== frame[i]) return false;
  return true;
}

function isBroadcast(frame: Uint8Array): boolean {
  for (let i = 0; i < MAC; i++) if (frame[i] !== 0xff) return false;
  return true;
}
