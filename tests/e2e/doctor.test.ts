import { resolve } from 'node:path';
import { createLog } from '@weir/log';
import { runCli, startInstance, testPrefix, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const workspace = resolve(import.meta.dirname, '../../workspace');
let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace }); });
afterAll(() => weir?.dispose());

interface Told { readonly check: string; readonly state: string; readonly message: string; readonly remedy?: string }
/** As somebody on the machine of the instance runs it. */
async function doctor(env: Readonly<Record<string, string>> = {}): Promise<{ code: number; text: string; checks: readonly Told[] }> {
  const { code, out, err } = await runCli(['doctor', workspace, '--json'], { WEIR_PORT: String(weir.base), WEIR_DATA: weir.dataDir, KAFKA_BROKERS: '', SCHEMA_REGISTRY_URL: '', ...env });
  return { code, text: out + err, checks: (JSON.parse(out) as { checks: Told[] }).checks };
}
const direct = (prefix: string): Record<string, string> => ({ KAFKA_BROKERS: inject('brokers').join(','), SCHEMA_REGISTRY_URL: inject('registryUrl'), WEIR_TOPIC_PREFIX: prefix });
const failures = (checks: readonly Told[]): readonly Told[] => checks.filter(({ state }) => state === 'fail');

test('of an instance that runs every check is right, by its control service and by the brokers themselves, and no secret is told', async () => {
  const through = await doctor();
  expect([through.code, failures(through.checks)]).toEqual([0, []]);
  expect(through.checks.filter(({ state }) => state === 'ok').map(({ check }) => check)).toEqual(['node', 'data folder', 'cache', 'workspace', 'key', 'secrets', 'brokers', 'topics', 'ingest', 'control', 'normalizer', 'policy', 'dispatcher', 'clock']);
  const asked = await doctor(direct(weir.prefix));
  expect([asked.code, failures(asked.checks)]).toEqual([0, []]);
  expect(asked.checks.find(({ check }) => check === 'brokers')).toMatchObject({ state: 'ok', message: expect.stringMatching(/ answers: Kafka 4\.3$/) });
  expect(asked.checks.find(({ check }) => check === 'topics')).toMatchObject({ state: 'ok', message: expect.stringMatching(/^\d\d are as declared/) });
  expect(asked.checks.find(({ check }) => check === 'registry')).toMatchObject({ state: 'ok' });
  for (const secret of [weir.writeKey(), /^admin token: (.+)$/m.exec(weir.output())![1]!]) expect(through.text + asked.text).not.toContain(secret);
});

test('topics that are not there, a registry that is none and a topic that somebody deleted are told with what to do', async () => {
  const before = await doctor({ ...direct(testPrefix('doctor')), SCHEMA_REGISTRY_URL: inject('registryUrl').replace(/\/apis.*$/, '/nothing') });
  expect(before.code).toBe(1);
  expect(failures(before.checks).filter(({ check }) => check === 'topics').length).toBeGreaterThan(10);
  expect(failures(before.checks).filter(({ check }) => check === 'registry')).toMatchObject([{ message: expect.stringContaining('no answer of a schema registry'), remedy: expect.stringContaining('/apis/ccompat/v7') }]);
  const log = createLog({ brokers: inject('brokers'), clientId: 'doctor-test' });
  await (await log.admin()).deleteTopics([`${weir.prefix}.outcome`]);
  await log.close();
  const after = await doctor(direct(weir.prefix));
  expect([after.code, failures(after.checks).filter(({ check }) => check === 'topics')]).toMatchObject([1, [{ message: expect.stringContaining(`${weir.prefix}.outcome`), remedy: expect.stringContaining('weir topics apply') }]]);
  await weir.stop('SIGKILL');
  const stopped = await doctor();
  expect([stopped.code, stopped.checks.find(({ check }) => check === 'services')]).toMatchObject([0, { state: 'warn' }]);
});
