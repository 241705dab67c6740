/** `npm run bench [-- name…]`: the named benchmarks, or all; each prints its table and writes bench/results/<name>.json. */
import { names, runBenchmark, startCluster, type Benchmark, type Cluster } from './harness.ts';

const all = names();
const wanted = process.argv.slice(2).length > 0 ? process.argv.slice(2) : all;
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
