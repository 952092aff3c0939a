import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apicIdLimit, apicIdsOf, coresOnly, topologyFault } from './cpu-topology.ts';

test('threads, cores and packages have bits of their own in an APIC ID', () => {
  assert.deepEqual(apicIdsOf(coresOnly(3)), [0, 1, 2]);
  assert.deepEqual(apicIdsOf({ sockets: 2, cores: 3, threads: 1 }), [0, 1, 2, 4, 5, 6]);
  assert.deepEqual(apicIdsOf({ sockets: 2, cores: 2, threads: 2 }), [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual(apicIdsOf({ sockets: 1, cores: 3, threads: 2 }), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(apicIdsOf({ sockets: 2, cores: 1, threads: 3 }), [0, 1, 2, 4, 5, 6]);
  assert.equal(apicIdLimit({ sockets: 2, cores: 3, threads: 1 }), 7);
});

test('what cannot be is told', () => {
  assert.equal(topologyFault(255, coresOnly(255)), null);
  assert.match(topologyFault(0, coresOnly(0))!, /^cpus=0 is not a number from 1 to 255$/);
  assert.match(topologyFault(1.5, coresOnly(1))!, /^cpus=1.5 is not/);
  assert.match(
    topologyFault(4, { sockets: 1, cores: 2, threads: 1 })!,
    /^sockets \(1\) \* cores \(2\) \* threads \(1\) is not 4$/,
  );
  assert.match(topologyFault(255, { sockets: 85, cores: 3, threads: 1 })!, /^APIC IDs go up to 338/);
});
