/** Loaded before a measured process: collects garbage, or ends cleanly, when the harness asks. */
const gc = (globalThis as unknown as { gc: (options: { readonly type: 'major'; readonly execution: 'sync'; readonly flavor: 'last-resort' }) => void }).gc;
/** Buffers that were collected are freed by another thread. */
const sweptMs = 100;

process.on('message', (message) => {
  if (message === 'exit') process.exit(0);
  if (message !== 'collect') return;
  gc({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  setTimeout(() => {
    if (process.env['WEIR_BENCH_MEMORY'] !== undefined) process.stderr.write(`${JSON.stringify(process.memoryUsage())}\n`);
    process.send!('collected');
  }, sweptMs);
});
process.channel?.unref();
// Its harness is gone: nobody will read what it measures.
process.on('disconnect', () => process.exit(1));
