/** docs/scaling.md from what was measured: `npm run generate` writes it. A stage without a result has none here either. */
import { readResult, type PartyResult } from './results.ts';

interface Stage {
  readonly name: string;
  /** CPU µs of the process and of the broker per event. */
  readonly cpu: number;
  readonly broker: number;
}

const utilisation = 0.6;
const rates = [1_000, 10_000, 100_000, 1_000_000];
/** Of the plan, not of the measurement. */
const replicas = 3;
const coresABroker = 8;
const fewestPartitions = 6;

const party = (benchmark: string, name: string): PartyResult | undefined => readResult(benchmark)?.parties.find((p) => p.name === name);

function stage(name: string, found: PartyResult | undefined, times = 1): Stage[] {
  return found === undefined ? [] : [{ name, cpu: found.cpuUsPerRecord * times, broker: found.brokerCpuUsPerRecord * times }];
}

/** An event is accepted, normalised, decided for every destination of `policy`, and delivered once. */
function stages(): Stage[] {
  const destinations = Number(readResult('policy')?.parameters['destinations'] ?? 0);
  return [
    ...stage('ingest', party('ingest', 'weir')), ...stage('normalizer', party('normalizer', 'weir-everything-on')), ...stage(`policy, ${destinations} destinations`, party('policy', 'weir'), destinations),
    ...stage('dispatcher, single calls', party('dispatcher', 'weir')), ...stage('dispatcher, batches', party('dispatcher', 'weir-batches')),
  ];
}

const table = (rows: readonly (readonly (string | number)[])[]): string => [rows[0]!, rows[0]!.map(() => '---'), ...rows.slice(1)].map((row) => `| ${row.join(' | ')} |`).join('\n');
const round = (n: number): number => (n >= 10 ? Math.round(n) : Math.round(n * 100) / 100);
const words = (n: number): string => n.toLocaleString('en');

function millionTable(all: readonly Stage[]): string {
  const rows = all.map(({ name, cpu, broker }) => [name, round(cpu), round(broker), round(cpu), round(broker)]);
  return table([['stage', 'CPU µs an event', 'broker CPU µs', 'core-seconds a million events', 'of the broker'], ...rows]);
}

/** Cores at the planned utilisation, and processes: one core each, and one more so that a restart is no outage. */
function rateTable(all: readonly Stage[]): string {
  const cores = (us: number, rate: number): number => us * rate / 1e6 / utilisation;
  const processes = (us: number, rate: number): number => Math.ceil(cores(us, rate)) + 1;
  const rows = rates.map((rate) => {
    const most = Math.max(...all.map(({ cpu }) => processes(cpu, rate)));
    // Of the two ways to deliver, the dearer one.
    const broker = all.filter(({ name }) => name !== 'dispatcher, batches').reduce((sum, s) => sum + s.broker, 0);
    const brokerCores = cores(broker, rate) * replicas;
    return [words(rate), ...all.map(({ cpu }) => `${round(cores(cpu, rate))} (${processes(cpu, rate)})`), Math.max(fewestPartitions, 4 * most), round(brokerCores), Math.max(replicas, Math.ceil(brokerCores / coresABroker))];
  });
  return table([['events/s', ...all.map(({ name }) => `${name}: cores (instances)`), 'partitions', `broker cores, ${replicas} replicas`, `brokers of ${coresABroker} cores`], ...rows]);
}

function stateLines(): string {
  const restore = readResult('restore')?.parties[0];
  if (restore === undefined) return 'No result of `restore` is recorded.';
  const { topicBytesPerKey, diskBytesPerKey } = restore.more;
  const seconds = (keys: number): string => `${words(keys)} keys in ${round(keys / restore.median)} s`;
  return `A state of consent is ${topicBytesPerKey} bytes on the topic (key and value) and ${diskBytesPerKey} on the local disk. An instance without its cache reads ${words(restore.median)} keys a second: ${seconds(1e6)}, ${seconds(1e7)}, ${seconds(1e8)}. One with its cache goes on from its checkpoint.`;
}

export function scalingTables(): string {
  const all = stages();
  return [all.length === 0 ? 'No result is recorded.' : `${millionTable(all)}\n\n${rateTable(all)}`, stateLines()].join('\n\n');
}
