/** Three real brokers, and hands to use and to harm them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, type Log, type LogOptions } from '@weir/log';
import { waitFor } from '@weir/testing';
import { startPlatform, type Broker, type Platform } from '../../infra/local/platform.ts';
import { createOperator, type Operator } from '../../packages/log/operator.ts';
import { harmed, type HarmedDriver } from './harm.ts';

export type DriverName = NonNullable<LogOptions['driver']>;

/** A broker is fenced this long after it fell silent, and may not register again before. */
export const brokerSessionMs = 5000;

export interface World {
  readonly platform: Platform;
  readonly operator: Operator;
  /** A log of its own, closed after the row. */
  log(driver: DriverName, options?: Partial<LogOptions>): Log;
  /** A log over a driver that can be harmed. */
  harmedLog(driver: DriverName, options?: Partial<LogOptions>): { readonly log: Log; readonly driver: HarmedDriver };
  /** A new topic on all three, leaders spread, min.insync.replicas 2. */
  topic(partitions: number, config?: Readonly<Record<string, string>>): Promise<string>;
  name(kind: string): string;
  broker(nodeId: number): Broker;
  /** Every partition of the topic has all its replicas in sync and a leader again. */
  healthy(topic: string): Promise<void>;
  /** Runs when the row ends, well or badly. */
  atEnd(cleanup: () => void): void;
  endOfRow(): Promise<void>;
  stop(): Promise<void>;
}

export async function startWorld(): Promise<World> {
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-conformance-'));
  const platform = await startPlatform({ dataDir, brokers: 3, registry: false, properties: { 'broker.session.timeout.ms': String(brokerSessionMs), 'broker.heartbeat.interval.ms': '1000', 'controlled.shutdown.max.retries': '3' } });
  const operator = createOperator(platform.bootstrap);
  const admins = createLog({ brokers: platform.bootstrap, clientId: 'conformance-admin', deadlineMs: 60_000 });
  const admin = await admins.admin();
  let logs: Log[] = [];
  let cleanups: (() => void)[] = [];
  let count = 0;
  const options = (driver: DriverName, more: Partial<LogOptions>): LogOptions => ({ brokers: platform.bootstrap, clientId: `conformance-${++count}`, driver, ...more });
  const keep = (log: Log): Log => {
    logs.push(log);
    return log;
  };
  const world: World = {
    platform, operator,
    log: (driver, more = {}) => keep(createLog(options(driver, more))),
    harmedLog(driver, more = {}) {
      const harmedDriver = harmed(driver);
      return { log: keep(createLog(options(driver, more), harmedDriver)), driver: harmedDriver };
    },
    async topic(partitions, config = {}) {
      const name = world.name('topic');
      await admin.createTopics([{ name, partitions, replicationFactor: 3, config: { 'min.insync.replicas': '2', ...config } }]);
      return name;
    },
    name: (kind) => `${kind}-${process.pid}-${++count}`,
    broker: (nodeId) => platform.brokers[nodeId - 1]!,
    async healthy(topic) {
      await waitFor(`${topic} is in sync`, () => operator.inSync(topic), 90_000);
    },
    atEnd(cleanup) { cleanups.push(cleanup); },
    async endOfRow() {
      for (const cleanup of cleanups) cleanup();
      cleanups = [];
      await Promise.all(logs.map((log) => log.close()));
      logs = [];
    },
    async stop() {
      await world.endOfRow();
      await admins.close();
      await platform.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
  // The first group and its topic of offsets take their time: not that of the first row.
  await waitFor('a coordinator', async () => (await operator.coordinator('first').catch(() => -1)) > 0, 90_000);
  return world;
}
