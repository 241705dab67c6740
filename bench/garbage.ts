/** Of a process that was started with --expose-gc. */
const gc = (globalThis as unknown as { gc: (options: { readonly type: 'major'; readonly execution: 'sync'; readonly flavor: 'last-resort' }) => void }).gc;
/** Buffers that were collected are freed by another thread. */
const sweptMs = 100;

/** Resolves when all that nobody holds is freed. */
export async function collect(): Promise<void> {
  gc({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  await new Promise((swept) => setTimeout(swept, sweptMs));
}
