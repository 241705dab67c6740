import { BlockList, isIP } from 'node:net';
import { WeirError } from '@weir/errors';

/**
 * Addresses that an outbound call must never reach: everything that is not global unicast, after the IANA
 * special-purpose registries (RFC 6890, RFC 5735, RFC 4193, RFC 6052, RFC 3056, RFC 4380).
 */
// Two lists: BlockList checks an IPv4 address against ::ffff:0:0/96 too, and that would block all of them.
const blocked4 = new BlockList();
const blocked6 = new BlockList();
for (const [net, prefix] of [['0.0.0.0', 8], ['10.0.0.0', 8], ['100.64.0.0', 10], ['127.0.0.0', 8], ['169.254.0.0', 16], ['172.16.0.0', 12], ['192.0.0.0', 24], ['192.0.2.0', 24], ['192.88.99.0', 24], ['192.168.0.0', 16], ['198.18.0.0', 15], ['198.51.100.0', 24], ['203.0.113.0', 24], ['224.0.0.0', 4], ['240.0.0.0', 4]] as const) blocked4.addSubnet(net, prefix, 'ipv4');
for (const [net, prefix] of [['::', 96], ['::ffff:0:0', 96], ['64:ff9b::', 96], ['64:ff9b:1::', 48], ['100::', 64], ['2001::', 23], ['2001:db8::', 32], ['2002::', 16], ['3fff::', 20], ['5f00::', 16], ['fc00::', 7], ['fe80::', 10], ['fec0::', 10], ['ff00::', 8]] as const) blocked6.addSubnet(net, prefix, 'ipv6');

/** True for a public unicast address in its textual form; zone ids and anything that is no IP are not public. */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 0 || address.includes('%')) return false;
  return family === 4 ? !blocked4.check(address, 'ipv4') : !blocked6.check(address, 'ipv6');
}

/**
 * Which addresses may be called: public ones, and what `allowPrivate` opens (true = every address; else networks in
 * CIDR notation, e.g. `10.0.0.0/8`). Throws config-invalid for a network that is none.
 */
export function addressRule(allowPrivate: boolean | readonly string[] = false): (address: string) => boolean {
  if (allowPrivate === true) return (address) => isIP(address) !== 0;
  if (allowPrivate === false || allowPrivate.length === 0) return isPublicAddress;
  const opened = new BlockList();
  for (const cidr of allowPrivate) {
    const [net = '', prefix = ''] = cidr.split('/');
    const family = isIP(net);
    if (family === 0 || !/^\d{1,3}$/.test(prefix) || Number(prefix) > (family === 4 ? 32 : 128)) throw new WeirError('config-invalid', `expected a network such as 10.0.0.0/8, got ${JSON.stringify(cidr.slice(0, 80))}`);
    opened.addSubnet(net, Number(prefix), family === 4 ? 'ipv4' : 'ipv6');
  }
  return (address) => isPublicAddress(address) || (!address.includes('%') && isIP(address) !== 0 && opened.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6'));
}
