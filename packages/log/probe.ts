/** What an operator asks before a start, or in an incident: whether a broker and the registry answer, and as what. Nothing is written. https://kafka.apache.org/protocol */
import type { RegistrySecurity } from '@weir/config';
import { WeirError } from '@weir/errors';
import { apiVersionsV4, Connection } from '@platformatic/kafka';
import { withDeadline } from './deadline.ts';
import { isRefusal, reasonOf, tlsRefusal } from './refusal.ts';
import { createRegistry } from './registry.ts';
import { createSecurity, tlsOptions } from './security.ts';
import type { LogOptions } from './types.ts';

export interface BrokerFound {
  /** Release of Apache Kafka that it is of, e.g. `4.3`; undefined = it does not say (before 3.3, or not Apache's). */
  readonly release: string | undefined;
  /** Requests of Weir that it does not know, e.g. `Produce 11 (it has 3 to 9)`. */
  readonly lacks: readonly string[];
}

const timeoutMs = 4000;
/** Requests of the default driver, by number and version. https://kafka.apache.org/protocol#protocol_api_keys */
const asked: ReadonlyArray<readonly [key: number, name: string, version: number]> = [
  [0, 'Produce', 11], [1, 'Fetch', 12], [2, 'ListOffsets', 7], [3, 'Metadata', 12], [8, 'OffsetCommit', 8], [9, 'OffsetFetch', 8], [10, 'FindCoordinator', 4], [11, 'JoinGroup', 9],
  [12, 'Heartbeat', 4], [13, 'LeaveGroup', 5], [14, 'SyncGroup', 5], [19, 'CreateTopics', 7], [32, 'DescribeConfigs', 4],
];
/** Levels of metadata.version that releases began with (MetadataVersion.java). */
const releases: ReadonlyArray<readonly [level: number, release: string]> = [[7, '3.3'], [8, '3.4'], [9, '3.5'], [12, '3.6'], [15, '3.7'], [20, '3.8'], [21, '3.9'], [22, '4.0'], [26, '4.1'], [28, '4.2'], [30, '4.3'], [31, '4.4 or later']];

interface Versions {
  readonly apiKeys: ReadonlyArray<{ readonly apiKey: number; readonly minVersion: number; readonly maxVersion: number }>;
  readonly supportedFeatures: ReadonlyArray<{ readonly name: string; readonly maxVersion: number }>;
}

/**
 * Asks one broker (`host:port`) what it is, before any login. Rejects with log-unavailable when it does not answer within
 * some seconds, with log-tls-failed or log-auth-failed when TLS is refused, and with config-invalid.
 */
export async function probeBroker(broker: string, options: Pick<LogOptions, 'security' | 'clientId'>): Promise<BrokerFound> {
  const at = broker.lastIndexOf(':');
  const [host, port] = [broker.slice(0, at), Number(broker.slice(at + 1))];
  if (at <= 0 || !Number.isInteger(port) || port < 1 || port > 65_535) throw new WeirError('config-invalid', `KAFKA_BROKERS: expected host:port, got ${JSON.stringify(broker)}`);
  const tls = createSecurity(options.security)?.().tls;
  const connection = new Connection(options.clientId, { connectTimeout: timeoutMs, requestTimeout: timeoutMs, tls: tls === undefined ? undefined : tlsOptions(tls, host) });
  let lost: Error | undefined;
  connection.on('error', (error: Error) => { lost ??= error; });
  const answer = async (): Promise<Versions> => {
    await connection.connect(host, port);
    return new Promise<Versions>((resolve, reject) => {
      (apiVersionsV4.api as unknown as (...all: unknown[]) => void)(connection, 'weir', '1', (error: Error | null, found: Versions) => (error ? reject(lost ?? error) : resolve(found)));
    });
  };
  try {
    const { apiKeys, supportedFeatures } = await withDeadline(answer(), timeoutMs, `broker ${broker}`, 'log-unavailable');
    const level = supportedFeatures.find(({ name }) => name === 'metadata.version')?.maxVersion ?? 0;
    const lacks = asked.flatMap(([key, name, version]) => {
      const has = apiKeys.find(({ apiKey }) => apiKey === key);
      return has !== undefined && has.minVersion <= version && has.maxVersion >= version ? [] : [`${name} ${version} (${has === undefined ? 'it has none' : `it has ${has.minVersion} to ${has.maxVersion}`})`];
    });
    return { release: releases.findLast(([from]) => from <= level)?.[1], lacks };
  } catch (error) {
    if (error instanceof WeirError) throw error;
    throw tlsRefusal(error, `broker ${broker}`) ?? new WeirError('log-unavailable', `no answer of broker ${broker}${tls === undefined ? ' in plaintext' : ''}: ${reasonOf(error)}`, { cause: error });
  } finally {
    // Cut, not ended: one that hangs would be waited for.
    connection.socket?.destroy();
    connection.close(() => undefined);
  }
}

/**
 * Asks the registry for a schema of Weir: true = it has it, false = it answers and does not know it yet, as before the first
 * `weir apply`. Rejects with log-auth-failed, log-tls-failed, config-invalid, or with log-unavailable when it does not answer
 * as a registry does.
 */
export async function probeRegistry({ registryUrl, security }: { readonly registryUrl: string; readonly security?: RegistrySecurity }): Promise<boolean> {
  const registry = createRegistry(registryUrl, security);
  try {
    await withDeadline(registry.getLatestSchemaId('weir.canonical.Profile'), timeoutMs, `the schema registry ${registryUrl}`, 'log-unavailable');
    return true;
  } catch (error) {
    if (isRefusal(error) || error instanceof WeirError) throw error;
    const { status, message } = error as Error & { readonly status?: number };
    if (status === 401 || status === 403) throw new WeirError('log-auth-failed', `the schema registry ${registryUrl} refuses the login (${status})`, { cause: error });
    // A registry says what it does not know; any other server knows no such page.
    if (status === 404 && /subject|artifact|schema/i.test(message)) return false;
    throw new WeirError('log-unavailable', `no answer of a schema registry at ${registryUrl}: ${message.slice(0, 200)}`, { cause: error });
  }
}
