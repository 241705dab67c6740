import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Secret } from '@weir/config';
import { WeirError } from '@weir/errors';
import { createAuthority } from '@weir/testing';
import { afterAll, expect, test } from 'vitest';
import { Cluster } from './cluster.ts';
import type { BrokerConnection, Driver } from './driver.ts';
import { createSecurity, tlsOptions } from './security.ts';

const dir = mkdtempSync(join(tmpdir(), 'weir-security-'));
afterAll(() => rmSync(dir, { recursive: true }));
const authority = createAuthority('authority');

function file(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
}

test.each([
  ['a file that is not there', { caFile: join(dir, 'none.pem') }, 'ENOENT'],
  ['an empty bundle, by which Node would trust every public authority', { caFile: file('empty.pem', '') }, 'no certificate in PEM'],
  ['a bundle that holds something else', { caFile: file('text.pem', 'hello') }, 'no certificate in PEM'],
  ['a key of another certificate', { certFile: file('a.pem', authority.issue('a').cert), keyFile: file('b.key', authority.issue('b').key) }, 'b.key'],
])('%s is refused at the start', (_what, tls, message) => {
  expect(() => createSecurity({ tls })).toThrow(expect.objectContaining({ code: 'config-invalid', message: expect.stringContaining(message) }));
});

test('a rotated pair is taken up by the next connection; half of it leaves the old pair in use, and that is told', () => {
  const [first, second] = [authority.issue('first'), authority.issue('second')];
  const tls = { certFile: file('client.pem', first.cert), keyFile: file('client.key', first.key) };
  const secured = createSecurity({ tls })!;
  const before = secured().tls;
  expect(secured().tls).toBe(before);
  file('client.pem', second.cert);
  expect(secured()).toMatchObject({ tls: before, stale: expect.stringContaining('client.key') });
  file('client.key', second.key);
  expect(secured().stale).toBeUndefined();
  expect(secured().tls).not.toBe(before);
});

test('a password is of its file as it is now, without the line end, and does not print', () => {
  const path = file('password', 'one\r\n');
  const secured = createSecurity({ sasl: { mechanism: 'PLAIN', username: 'weir', password: { file: path } } })!;
  expect(secured().sasl?.password).toBe('one');
  file('password', 'two');
  expect(secured().sasl?.password).toBe('two');
  const given = { sasl: { mechanism: 'PLAIN', username: 'weir', password: new Secret('three') } } as const;
  expect(createSecurity(given)!().sasl?.password).toBe('three');
  expect(JSON.stringify(given)).toContain('[secret]');
});

test('the certificate is checked whatever the environment says, and by name where there is one', () => {
  const { tls } = createSecurity({ tls: {} })!();
  expect(tlsOptions(tls!, 'broker.example')).toMatchObject({ rejectUnauthorized: true, servername: 'broker.example' });
  expect(tlsOptions(tls!, '10.0.0.1')).not.toHaveProperty('servername');
});

test('one broker of the list that refuses does not hide another that answers; none that answers tells the refusal', async () => {
  const answering = new Set(['two']);
  const broker = { metadata: async () => ({ brokers: [{ nodeId: 2, host: 'two', port: 1 }], topics: [] }), destroy() {} } as unknown as BrokerConnection;
  const driver: Driver = { name: 'kafkajs', async connect(_clientId, { host }) {
    if (answering.has(host)) return broker;
    throw host === 'one' ? new WeirError('log-auth-failed', 'broker one refuses') : new Error('ECONNREFUSED');
  } };
  const cluster = (): Cluster => new Cluster(driver, { brokers: ['one:1', 'two:1'], clientId: 'test', deadlineMs: 1000 });
  await cluster().refresh([]);
  answering.clear();
  await expect(cluster().refresh([])).rejects.toMatchObject({ code: 'log-auth-failed' });
});
