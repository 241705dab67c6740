/** Loaded before a measured process: collects garbage, or ends cleanly, when the harness asks. */
process.on('message', (message) => {
  if (message === 'exit') process.exit(0);
  if (message !== 'collect') return;
  (globalThis as unknown as { gc: () => void }).gc();
  process.send!('collected');
});
process.channel?.unref();
// Its harness is gone: nobody will read what it measures.
process.on('disconnect', () => process.exit(1));
