/** `node infra/local/main.ts [--brokers 1|3] [--data <folder>]`: the local platform on its own, until Ctrl-C. */
import { parseArgs } from 'node:util';
import { startPlatform } from './platform.ts';

const { values } = parseArgs({ options: { brokers: { type: 'string', default: '1' }, data: { type: 'string', default: '.weir/platform' } } });
if (values.brokers !== '1' && values.brokers !== '3') {
  console.error('--brokers takes 1 or 3');
  process.exit(2);
}
const began = performance.now();
const platform = await startPlatform({ dataDir: values.data, brokers: values.brokers === '3' ? 3 : 1 });
console.log(`KAFKA_BROKERS=${platform.bootstrap.join(',')}\nSCHEMA_REGISTRY_URL=${platform.registryUrl}`);
console.error(`ready in ${((performance.now() - began) / 1000).toFixed(1)} s; Ctrl-C ends it`);
let stopping: Promise<void> | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => { stopping ??= platform.stop().then(() => process.exit(0)); });
