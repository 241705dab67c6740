/** `restore.ts <consent topic> <identity topic> <states>`: the tables that every policy and dispatcher instance holds, from nothing; tells what it took. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createConsentTables } from '@weir/consent';
import { createLog, createSerde } from '@weir/log';
import { consentKey } from '@weir/policy';
import { systemClock } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { restoredId } from '../deliveries.ts';
import { answer } from './helper.ts';

const [consent, identity, count] = process.argv.slice(2) as [string, string, string];
answer({
  async run() {
    const log = createLog({ brokers: process.env['KAFKA_BROKERS']!.split(','), clientId: 'bench-restore' });
    const serde = createSerde({ registryUrl: process.env['SCHEMA_REGISTRY_URL']! });
    await serde.start();
    const stateDir = mkdtempSync(join(tmpdir(), 'weir-restore-'));
    const tables = await createConsentTables({ log, serde, topics: { consent, identity }, stateDir, clock: systemClock, logger: createLogger({ service: 'bench', level: 'silent' }) }, (error) => {
      console.error(error);
      process.exit(1);
    });
    const cpu = process.cpuUsage();
    const began = performance.now();
    await tables.start();
    const wallMs = performance.now() - began;
    const { user, system } = process.cpuUsage(cpu);
    for (let i = 0; i < Number(count); i += 997) if (tables.stored(consentKey(restoredId(i), 'news', 'email', '')) === undefined) throw new Error(`state ${i} is not there`);
    return { wallMs, cpuUs: user + system, stateDir };
  },
  async clear(stateDir: string) {
    rmSync(stateDir, { recursive: true, force: true });
    return true;
  },
});
