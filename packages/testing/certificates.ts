/**
 * X.509 certificates for tests, made when they are needed: node:crypto reads and signs but does not issue, and what tests
 * may rely on has no openssl. DER of RFC 5280, no more than a TLS peer looks at.
 */
import { generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';
import { isIPv4 } from 'node:net';

export interface Issued {
  /** PEM. */
  readonly cert: string;
  /** PKCS #8 PEM. */
  readonly key: string;
}

export interface Authority extends Issued {
  /** A certificate for these names and IPv4 addresses; without any it is a client's. */
  issue(commonName: string, names?: readonly string[]): Issued;
}

function der(tag: number, ...content: readonly Buffer[]): Buffer {
  const body = Buffer.concat(content);
  const n = body.length;
  const length = n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}

const sequence = (...content: readonly Buffer[]): Buffer => der(0x30, ...content);
const oid = (hex: string): Buffer => der(0x06, Buffer.from(hex, 'hex'));
const time = (at: Date): Buffer => der(0x17, Buffer.from(`${at.toISOString().slice(2, 19).replaceAll(/[-:T]/g, '')}Z`));
const nameOf = (common: string): Buffer => sequence(der(0x31, sequence(oid('550403'), der(0x0c, Buffer.from(common)))));
const ecdsaWithSha256 = sequence(oid('2a8648ce3d040302'));
const extension = (id: string, critical: boolean, value: Buffer): Buffer => sequence(oid(id), ...(critical ? [der(0x01, Buffer.from([255]))] : []), der(0x04, value));
const san = (name: string): Buffer => (isIPv4(name) ? der(0x87, Buffer.from(name.split('.').map(Number))) : der(0x82, Buffer.from(name)));

function certificate(subject: string, spki: Buffer, issuer: string, signer: KeyObject, extensions: readonly Buffer[], days: number): string {
  const dayMs = 86_400_000;
  const tbs = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))), der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)])), ecdsaWithSha256, nameOf(issuer),
    sequence(time(new Date(Date.now() - 2 * dayMs)), time(new Date(Date.now() + days * dayMs))), nameOf(subject), spki, der(0xa3, sequence(...extensions)),
  );
  const bytes = sequence(tbs, ecdsaWithSha256, der(0x03, Buffer.from([0]), sign('sha256', tbs, signer)));
  return `-----BEGIN CERTIFICATE-----\n${bytes.toString('base64').replaceAll(/.{64}/g, '$&\n').trimEnd()}\n-----END CERTIFICATE-----\n`;
}

function newKey(): { readonly privateKey: KeyObject; readonly spki: Buffer; readonly pem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { privateKey, spki: publicKey.export({ type: 'spki', format: 'der' }), pem: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string };
}

/** An authority of its own, with a self-signed certificate. `days` below zero: what it issues has expired. */
export function createAuthority(commonName: string, days = 2): Authority {
  const own = newKey();
  const isAuthority = extension('551d13', true, sequence(der(0x01, Buffer.from([255]))));
  return {
    cert: certificate(commonName, own.spki, commonName, own.privateKey, [isAuthority], 2),
    key: own.pem,
    issue(subject, names = []) {
      const leaf = newKey();
      const extensions = [extension('551d13', true, sequence()), ...(names.length === 0 ? [] : [extension('551d11', false, sequence(...names.map(san)))])];
      return { cert: certificate(subject, leaf.spki, commonName, own.privateKey, extensions, days), key: leaf.pem };
    },
  };
}
