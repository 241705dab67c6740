/** Brokers, topics and registry of KAFKA_BROKERS and SCHEMA_REGISTRY_URL; without them what the control service says of the topics. */
import { kafkaConnection, readConfig, registryConnection } from '@weir/config';
import { WeirError } from '@weir/errors';
import { probeBroker, probeRegistry } from '@weir/log';
import type { Release } from '@weir/release';
import { brokerOptions, topicsDirect, type TopicsReport } from './brokers.ts';
import { createClient } from './client.ts';
import { Finding, type Target } from './command.ts';
import { messageOf, type Check } from './doctor.ts';

const safeBrokers = 3;
const login = 'docs/operate.md, TLS and logins';
const remedies = new Map([['log-auth-failed', login], ['log-tls-failed', login], ['config-invalid', 'correct the variable']]);

function failed(check: string, error: unknown, remedy: string): Check {
  const own = error instanceof WeirError ? remedies.get(error.code) : undefined;
  return { check, state: 'fail', message: messageOf(error), remedy: own ?? remedy };
}

function tellTopics({ findings, topics }: TopicsReport): Check[] {
  if (findings.length === 0) return [{ check: 'topics', state: 'ok', message: `${topics} are as declared, the retention arithmetic holds` }];
  return findings.map(({ topic, message, remedy }) => ({ check: 'topics', state: 'fail', message: `${topic}: ${message}`, remedy }));
}

/** `control`: the control API answers. `release`: of the folder; undefined = it does not compile. */
export async function checkCluster(target: Target, release: Release | undefined, control: boolean): Promise<Check[]> {
  let config;
  try {
    config = readConfig(brokerOptions, target.env);
  } catch (error) {
    return [{ check: 'brokers', state: 'fail', message: messageOf(error), remedy: 'correct the variable' }];
  }
  const { brokers, registryUrl } = config;
  let connections;
  try {
    connections = { registry: registryUrl === undefined ? undefined : registryConnection({ ...config, registryUrl }), kafka: brokers === undefined ? undefined : kafkaConnection({ ...config, brokers }) };
  } catch (error) {
    return [{ check: 'brokers', state: 'fail', message: messageOf(error), remedy: 'correct the variable' }];
  }
  const registry = connections.registry === undefined ? [] : [await checkRegistry(connections.registry)];
  if (brokers === undefined || connections.kafka === undefined) return [...await checkThroughControl(target, control), ...registry];
  const connection = connections.kafka;
  const found = await Promise.all(brokers.map((broker) => checkBroker(broker, connection)));
  const few: Check[] = brokers.length < safeBrokers ? [{ check: 'brokers', state: 'warn', message: `KAFKA_BROKERS lists ${brokers.length}: topics are made without replicas`, remedy: `list ${safeBrokers} or more before the first weir apply` }] : [];
  return [...found, ...few, ...await checkTopics(target, release, found.some(({ state }) => state === 'ok')), ...registry];
}

async function checkBroker(broker: string, { security, driver }: ReturnType<typeof kafkaConnection<'platformatic' | 'kafkajs'>>): Promise<Check> {
  try {
    const { release, lacks } = await probeBroker(broker, { security, clientId: 'weir-doctor' });
    const message = `${broker} answers${release === undefined ? '' : `: Kafka ${release}`}`;
    if (lacks.length === 0 || driver !== 'platformatic') return { check: 'brokers', state: 'ok', message };
    return { check: 'brokers', state: 'fail', message: `${message}, and does not know ${lacks.join(', ')}`, remedy: 'upgrade the brokers, or set WEIR_KAFKA_CLIENT=kafkajs' };
  } catch (error) {
    return failed('brokers', error, 'look at the broker, the address and the firewall between; docs/troubleshooting.md');
  }
}

async function checkTopics(target: Target, release: Release | undefined, reachable: boolean): Promise<Check[]> {
  const check = 'topics';
  if (!reachable || release === undefined) return [{ check, state: 'warn', message: `not looked at: ${reachable ? 'the workspace does not compile' : 'no broker answers'}`, remedy: 'mend that first' }];
  try {
    return tellTopics(await topicsDirect(target.env, release, false));
  } catch (error) {
    return [failed(check, error, 'weir topics check; docs/troubleshooting.md')];
  }
}

async function checkRegistry(connection: Parameters<typeof probeRegistry>[0]): Promise<Check> {
  try {
    if (await probeRegistry(connection)) return { check: 'registry', state: 'ok', message: `${connection.registryUrl} has the schemas` };
    return { check: 'registry', state: 'warn', message: `${connection.registryUrl} answers and has no schema of Weir`, remedy: 'as before the first weir apply; else it is another registry than before' };
  } catch (error) {
    return failed('registry', error, 'look at its address (with Apicurio it ends in /apis/ccompat/v7) and its log');
  }
}

async function checkThroughControl(target: Target, control: boolean): Promise<Check[]> {
  const unset = 'KAFKA_BROKERS is not set';
  if (!control) return [{ check: 'brokers', state: 'warn', message: `not looked at: ${unset}, and no control service answers`, remedy: 'npm start brings its own broker; for a deployment set KAFKA_BROKERS and SCHEMA_REGISTRY_URL' }];
  try {
    const report = await createClient(target).get<TopicsReport>('/v1/topics/check');
    return [{ check: 'brokers', state: 'ok', message: 'the control service reaches them' }, ...tellTopics(report)];
  } catch (error) {
    if (!(error instanceof Finding) && !(error instanceof WeirError)) throw error;
    return [{ check: 'topics', state: 'fail', message: `the control service does not tell: ${messageOf(error)}`, remedy: 'WEIR_TOKEN or WEIR_DATA of the running instance; docs/troubleshooting.md' }];
  }
}
