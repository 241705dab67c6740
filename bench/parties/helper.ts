import { collect } from '../garbage.ts';

/** The other side of bench/world.ts, startHelper: answers messages by kind. */
export function answer(handlers: Readonly<Record<string, (value: any) => unknown>>): void {
  const all: typeof handlers = { ready: () => true, collect: () => collect().then(() => true), ...handlers };
  process.on('message', (message) => {
    const { kind, value } = message as { kind: string; value: unknown };
    Promise.resolve(all[kind]!(value)).then((result) => process.send!({ kind, value: result }), (error: unknown) => {
      console.error(error);
      process.exit(1);
    });
  });
  process.on('disconnect', () => process.exit(0));
}

/** Milliseconds of the machine's monotonic clock: the same in every process. */
export const clock = (): number => Number(process.hrtime.bigint() / 1000n) / 1000;

export function percentiles(values: Float64Array): { p50: number; p95: number; p99: number; max: number } {
  const sorted = values.sort();
  const at = (share: number): number => Math.round((sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0) * 100) / 100;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) };
}
