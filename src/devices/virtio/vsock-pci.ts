/** `vhost-vsock-pci`: by QEMU's name, though no kernel of the host's has a part in it. */
import { text, uint64 } from '../device-type.ts';
import { virtioTypes } from './type.ts';
import { VirtioVsock } from './vsock.ts';

const COMMUNICATION = 0x078000;
/** Lower ones have other meanings (5.10.4). */
const FIRST_GUEST_CID = 3;
const LAST_CID = 0xfffffffe;

export const VHOST_VSOCK_PCI = virtioTypes({
  name: 'vhost-vsock',
  category: 'misc',
  classCode: COMMUNICATION,
  transitional: false,
  properties: {
    'guest-cid': uint64(0),
    uds_path: text('Unix socket for programs of the host, and the beginning of the names of those that the guest reaches'),
  },
  create(values, parts, { hostNetwork }) {
    const cid = values['guest-cid'];
    if (cid < FIRST_GUEST_CID) throw new Error(`guest-cid property must be greater than ${FIRST_GUEST_CID - 1}`);
    if (cid > LAST_CID) throw new Error('guest-cid property must be a 32-bit number');
    return new VirtioVsock(parts, { cid, path: values.uds_path, host: hostNetwork });
  },
});
