import fc from 'fast-check';
import { expect, test } from 'vitest';
import { addressRule, isPublicAddress } from './address.ts';

const inner = [
  '127.0.0.1', '127.255.255.254', '0.0.0.0', '10.1.2.3', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.169.254', '169.254.170.2', '100.64.0.1', '100.127.255.255', '100.100.100.200', '192.0.0.192', '192.0.2.1', '198.18.0.1', '198.19.255.255', '198.51.100.1', '203.0.113.1', '192.88.99.1', '224.0.0.1', '239.255.255.255', '240.0.0.1', '255.255.255.255',
  '::', '::1', '::ffff:127.0.0.1', '::ffff:8.8.8.8', '::ffff:a00:1', '::7f00:1', '64:ff9b::7f00:1', '64:ff9b:1::a00:1', '2002:7f00:1::', '2001:0:4136:e378::', '2001:db8::1', '100::1', 'fd00::1', 'fc00::1', 'fe80::1', 'fe80::1%eth0', 'fec0::1', 'ff02::1', 'fd00:ec2::254', '2606:4700::1%1',
];

test.each([...inner, 'localhost', '', '0x7f.1', '2130706433', '127.1', '8.8.8.8 ', '[::1]'])('%s is not public', (address) => {
  expect(isPublicAddress(address)).toBe(false);
});

test.each(['8.8.8.8', '1.1.1.1', '172.15.255.255', '172.32.0.1', '100.63.255.255', '100.128.0.1', '169.253.1.1', '198.17.1.1', '223.255.255.255', '2606:4700:4700::1111', '2a00:1450:4001:81b::200e', '2001:4860:4860::8888'])('%s is public', (address) => {
  expect(isPublicAddress(address)).toBe(true);
});

test('an IPv4 address does not become public by being written as IPv6', () => {
  fc.assert(fc.property(fc.ipV4(), fc.constantFrom('::ffff:', '::', '64:ff9b::'), (address, prefix) => !isPublicAddress(prefix + address)));
});

test('a list of networks opens those and nothing else; metadata stays closed beside them', () => {
  const mayCall = addressRule(['127.0.0.0/8', 'fd00:1::/32', '10.9.8.7/32']);
  for (const address of ['127.0.0.1', '127.9.9.9', '10.9.8.7', 'fd00:1::5', '8.8.8.8']) expect([address, mayCall(address)]).toEqual([address, true]);
  for (const address of ['10.9.8.6', '169.254.169.254', '::1', 'fd00:2::1', 'fd00:1::5%eth0', 'localhost', '']) expect([address, mayCall(address)]).toEqual([address, false]);
  for (const list of [false, [] as string[]] as const) expect(addressRule(list)('127.0.0.1')).toBe(false);
});

test.each(['10.0.0.0', '10.0.0.0/33', '10.0.0.0/-1', 'fd00::/129', 'localhost/8', '', '10.0.0.0/8,'])('the network %s is refused when the client is made', (cidr) => {
  expect(() => addressRule([cidr])).toThrow(/expected a network/);
});
