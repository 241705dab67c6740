import type { DriverName, World } from './world.ts';

/** One hazard of the Kafka clients, tried on the guarded port over one driver. */
export interface Row {
  /** Stable; K numbers are those of the hazards that docs/log-conformance.md explains. */
  readonly id: string;
  readonly hazards: readonly string[];
  /** What is done, and what must hold. */
  readonly title: string;
  /** Where the guard is, and what it does. */
  readonly guard: string;
  /** Longer than this is a hang. */
  readonly limitMs: number;
  /** Resolves with the figures of the run; rejects when the row does not hold. */
  run(world: World, driver: DriverName): Promise<string>;
}

export function must(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

export function same<T>(found: T, expected: T, what: string): void {
  must(JSON.stringify(found) === JSON.stringify(expected), `${what}: expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}
