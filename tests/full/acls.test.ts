import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { acls, aclRules, type AclPrincipal } from '@weir/pipeline';
import { runCli, startFleet, testPrefix, type Fleet } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { freePorts, startPlatform, type Platform } from '../../infra/local/platform.ts';
import { createOperator } from '../../packages/log/operator.ts';

const root = resolve(import.meta.dirname, '../..');
const principals = Object.keys(acls) as AclPrincipal[];
let dir: string;
let platform: Platform;
let fleet: Fleet;
let brokers: string;

/** The login of a service; its password is its name, backwards. */
const login = (principal: AclPrincipal): Record<string, string> => ({
  WEIR_KAFKA_SECURITY_PROTOCOL: 'SASL_PLAINTEXT', WEIR_KAFKA_SASL_MECHANISM: 'PLAIN', WEIR_KAFKA_SASL_USERNAME: `weir-${principal}`, WEIR_KAFKA_SASL_PASSWORD: [...principal].reverse().join(''),
});

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'weir-acls-'));
  const [port] = await freePorts(1);
  const users = principals.map((principal) => `user_weir-${principal}="${[...principal].reverse().join('')}"`).join(' ');
  platform = await startPlatform({
    dataDir: join(dir, 'platform'), registry: false, listeners: [{ listen: [port!], advertised: [port!] }],
    properties: {
      'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,MORE0:SASL_PLAINTEXT', 'listener.name.more0.sasl.enabled.mechanisms': 'PLAIN',
      'listener.name.more0.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required ${users};`,
      'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer', 'super.users': 'User:ANONYMOUS', 'allow.everyone.if.no.acl.found': 'false',
    },
  });
  brokers = `127.0.0.1:${port}`;
  const prefix = testPrefix('acls');
  const operator = createOperator(platform.bootstrap);
  for (const principal of principals) await operator.allow(`weir-${principal}`, aclRules(principal, prefix));
  cpSync(join(root, 'workspace'), join(dir, 'workspace'), { recursive: true });
  fleet = await startFleet({
    brokers: [brokers], registryUrl: inject('registryUrl'), workspace: join(dir, 'workspace'), prefix, env: login('cli'),
    envOf: (service) => (service === 'sandbox' ? {} : login(service)),
  });
});

afterAll(async () => {
  await fleet?.dispose();
  await platform?.stop();
  if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
});

async function send(user: string, traits: object): Promise<void> {
  const response = await fleet.segment('identify', { messageId: `${user}-${JSON.stringify(traits)}`, userId: user, timestamp: new Date().toISOString(), traits: { email: `${user}@larkspur.example`, ...traits } });
  expect(response.status).toBe(200);
}

const logs = (): string => readdirSync(fleet.dataDir).filter((name) => name.endsWith('.log')).map((name) => `== ${name}\n${readFileSync(join(fleet.dataDir, name), 'utf8')}`).join('\n');

test('every service does its work under the rights of the table and no others', async () => {
  for (const user of ['ann', 'ben', 'eve']) await send(user, { plan: 'free', marketingConsent: true });
  await fleet.settled();
  // A change of consent by the API, applied; a dead letter and its way back; a replay; an erasure; a release and its topics.
  expect(await fleet.cli('consent', 'set', 'ann@larkspur.example', '--purpose', 'email-marketing', '--state', 'withdrawn')).toMatchObject({ code: 0 });
  await fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ destination: 'crm', mode: 'permanent', count: 1, subject: 'ben@larkspur.example' }) });
  await send('ben', { plan: 'gold' });
  await fleet.settled();
  for (const args of [['replay', 'dlq', '--destination', 'crm', '--yes'], ['replay', 'raw', '--source', 'segment', '--yes'], ['subject', 'erase', 'eve@larkspur.example', '--linked', 'all', '--yes'], ['topics', 'apply'], ['status']]) expect(await fleet.cli(...args), args.join(' ')).toMatchObject({ code: 0 });
  const status = await fleet.settled();
  expect(status.deliveries.delivered).toBeGreaterThan(6);
  expect(await runCli(['topics', 'check', join(dir, 'workspace')], { WEIR_DATA: fleet.dataDir, KAFKA_BROKERS: brokers, SCHEMA_REGISTRY_URL: inject('registryUrl'), WEIR_TOPIC_PREFIX: fleet.prefix, ...login('cli') })).toMatchObject({ code: 0 });
  expect(logs()).not.toMatch(/not authorised|AUTHORIZATION_FAILED|broker error (29|30|31)/i);
}, 240_000);

test('a service without its rights is told so', async () => {
  const refused = await runCli(['topics', 'apply', join(dir, 'workspace')], { WEIR_DATA: fleet.dataDir, KAFKA_BROKERS: brokers, SCHEMA_REGISTRY_URL: inject('registryUrl'), WEIR_TOPIC_PREFIX: 'another', ...login('cli') });
  expect(refused.out + refused.err).toMatch(/authori[sz]/i);
  expect(refused.code).not.toBe(0);
});
