/** Loaded before a measured process: collects garbage, or ends cleanly, when the harness asks. */
import { collect } from './garbage.ts';

process.on('message', (message) => {
  if (message === 'exit') process.exit(0);
  if (message !== 'collect') return;
  void collect().then(() => {
    if (process.env['WEIR_BENCH_MEMORY'] !== undefined) process.stderr.write(`${JSON.stringify(process.memoryUsage())}\n`);
    process.send!('collected');
  });
});
process.channel?.unref();
// Its harness is gone: nobody will read what it measures.
process.on('disconnect', () => process.exit(1));
