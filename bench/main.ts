/** `npm run bench [-- name…]`: the named benchmarks, or all; each prints its table and writes bench/results/<name>.json. At the end the limits of all results; `npm run bench -- table` prints only those. */
import { runBenchmark, startCluster, type Benchmark, type Cluster } from './harness.ts';
import { limitsText, names } from './results.ts';

const all = names();
const given = process.argv.slice(2);
const wanted = given.join() === 'table' ? [] : given.length > 0 ? given : all;
const unknown = wanted.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  console.error(`no benchmark ${unknown.join(', ')}; there are ${all.join(', ')}`);
  process.exit(2);
}
// So that the processes of a cut run end, too.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
for (const name of wanted) {
  const cluster = await startCluster();
  try {
    const { create } = (await import(`./names/${name}.ts`)) as { create: (cluster: Cluster) => Promise<Benchmark & { close(): Promise<void> }> };
    const benchmark = await create(cluster);
    try {
      await runBenchmark(benchmark);
    } finally {
      await benchmark.close();
    }
  } finally {
    await cluster.stop();
  }
}
console.log(`\n${limitsText()}`);
