/** A user network whose guest is this host's kernel, by way of a TAP interface. Argument: `offloads` or `plain`. */
import { network } from '#host';
import { TapBackend } from '../../src/network/tap.ts';
import { DEFAULT_PLAN, runningClock, seeded } from '../../src/network/test-kit.ts';
import { UserNetwork } from '../../src/network/user/user-network.ts';

const tap = new TapBackend(network, {
  name: 'tap0',
  fd: null,
  headers: process.argv[2] === 'offloads',
  script: null,
  downScript: null,
});
const { clock } = runningClock();
const user = new UserNetwork({ plan: DEFAULT_PLAN, host: network, clock, random: seeded(1) });
tap.onReceive = (frame, offload) => user.send(frame, offload);
user.onReceive = (frame, offload) => tap.send(frame, offload);
tap.accepts = user.offloads;
user.accepts = tap.offloads;
console.log('ready');
process.on('SIGINT', () => process.exit(0));
