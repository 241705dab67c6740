/** Every metric of every service, from the objects that the services make: for docs/metrics.md. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createRetentionWatch } from '@weir/service';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { createControl } from '../services/control/app.ts';
import { createReplayMetrics } from '../services/control/replay/metrics.ts';
import { createUnresolved } from '../services/control/unresolved.ts';
import { createCredentials } from '../services/dispatcher/credentials.ts';
import { createEscalations } from '../services/dispatcher/escalation.ts';
import { createMetrics as createDispatcherMetrics } from '../services/dispatcher/metrics.ts';
import { createQuotas } from '../services/dispatcher/quota.ts';
import { createMetrics as createIngestMetrics } from '../services/ingest/metrics.ts';
import { createMetrics as createNormalizerMetrics } from '../services/normalizer/metrics.ts';
import { createMetrics as createPolicyMetrics } from '../services/policy/metrics.ts';
import { sources } from './check-boundaries.ts';

const root = resolve(import.meta.dirname, '..');

/** What the factories touch before they are started: nothing runs, no timer is set. */
const idle = { clock: { setTimer: () => undefined, clearTimer: () => undefined, now: () => 0, monotonic: () => 0 }, vault: { onChange: () => () => undefined }, releases: { incidents: () => new Map() } };

/** What each service registers. A retention watch is in every stage. */
const services: Readonly<Record<string, (registry: Registry) => void>> = {
  ingest: (registry) => { createIngestMetrics(registry, () => 0); },
  normalizer(registry) {
    createNormalizerMetrics(registry);
    createRetentionWatch({ registry } as never);
  },
  policy(registry) {
    createPolicyMetrics(registry);
    createRetentionWatch({ registry } as never);
  },
  dispatcher(registry) {
    createDispatcherMetrics(registry);
    createRetentionWatch({ registry } as never);
    createQuotas({ registry, clock: idle.clock } as never);
    createCredentials({ registry, ...idle } as never);
    createEscalations({ registry } as never);
  },
  control(registry) {
    createControl({ registry } as never, {} as never);
    createUnresolved({ registry, clock: idle.clock } as never);
    createReplayMetrics(registry);
  },
};

interface Row {
  readonly name: string;
  readonly type: string;
  readonly labels: readonly string[];
  readonly help: string;
  readonly in: string[];
}

const typeOf = (metric: unknown): string => (metric instanceof Counter ? 'counter' : metric instanceof Gauge ? 'gauge' : metric instanceof Histogram ? 'histogram' : 'other');

function rows(): Map<string, Row> {
  const found = new Map<string, Row>();
  for (const [service, register] of Object.entries(services)) {
    const registry = new Registry();
    register(registry);
    for (const metric of registry.getMetricsAsArray() as unknown as { name: string; help: string; labelNames: readonly string[] }[]) {
      const row = found.get(metric.name) ?? { name: metric.name, type: typeOf(metric), labels: metric.labelNames, help: metric.help, in: [] };
      row.in.push(service);
      found.set(metric.name, row);
    }
  }
  return found;
}

/** Markdown table, by service. Throws when the code names a metric that no service above registers: it would be missing here. */
export function metricsTable(): string {
  const found = rows();
  for (const path of sources().filter((file) => /^(?:services|packages)\//.test(file) && !file.includes('.test.'))) {
    for (const [, name] of readFileSync(join(root, path), 'utf8').matchAll(/(?:name: |gauge\()'(weir_[a-z_]+)', (?:help|')/g)) {
      if (!found.has(name!)) throw new Error(`${path} makes the metric ${name}, which scripts/metrics-table.ts does not know`);
    }
  }
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '\\<');
  const lines = [...found.values()].map((row) => `| \`${row.name}\` | ${row.type} | ${row.labels.map((label) => `\`${label}\``).join(', ')} | ${row.in.join(', ')} | ${cell(row.help)} |`);
  return ['| metric | type | labels | service | meaning |', '|---|---|---|---|---|', ...lines].join('\n');
}
