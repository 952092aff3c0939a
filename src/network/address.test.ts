import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatIp,
  hostInNetwork,
  isLoopback,
  isUnicast,
  parseIp,
  parseIpv4,
  parseIpv6,
  parseMac,
  sameNetwork,
} from './address.ts';

const ip = (text: string): Uint8Array => parseIp(text)!;

test('addresses of both kinds, there and back', () => {
  const texts = ['0.0.0.0', '10.0.2.15', '255.255.255.255', '::', '::1', 'fec0::2', 'fe80::5054:ff:fe12:3456', '1:2:3:4:5:6:7:8'];
  for (const text of [...texts, '1:0:0:2::3', 'a::']) assert.equal(formatIp(ip(text)), text);
  assert.equal(formatIp(ip('::ffff:1.2.3.4')), '::ffff:102:304');
  assert.equal(formatIp(ip('2001:DB8:0:0:1:0:0:1')), '2001:db8::1:0:0:1');
});

test('what is no address', () => {
  for (const text of ['', '1.2.3', '1.2.3.256', '1.2.3.4.5', 'a.b.c.d']) assert.equal(parseIpv4(text), null, text);
  for (const text of ['', ':', ':::', '1::2::3', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9', '12345::', 'g::']) {
    assert.equal(parseIpv6(text), null, text);
  }
  assert.equal(parseMac('52:54:00:12:34'), null);
  assert.deepEqual([...parseMac('52:54:0:12:34:ff')!], [0x52, 0x54, 0, 0x12, 0x34, 0xff]);
});

test('hosts within networks', () => {
  assert.equal(formatIp(hostInNetwork(ip('10.0.2.77'), 24, 2)), '10.0.2.2');
  assert.equal(formatIp(hostInNetwork(ip('10.0.0.0'), 30, 15)), '10.0.0.3');
  assert.equal(formatIp(hostInNetwork(ip('fec0::9'), 64, 2)), 'fec0::2');
  assert.ok(sameNetwork(ip('172.16.0.1'), ip('172.31.9.9'), 12));
  assert.ok(!sameNetwork(ip('172.16.0.1'), ip('172.32.0.1'), 12));
});

test('addresses that are nobody, everybody, or oneself', () => {
  for (const text of ['0.1.2.3', '224.0.0.1', '255.255.255.255', '::', '::1', '::ffff:127.0.0.1', 'ff02::1']) {
    assert.ok(!isUnicast(ip(text)), text);
  }
  assert.ok(isUnicast(ip('8.8.8.8')) && isUnicast(ip('2001:db8::1')));
  assert.ok(isLoopback(ip('127.3.2.1')) && isLoopback(ip('::1')) && !isLoopback(ip('10.0.0.1')));
});
