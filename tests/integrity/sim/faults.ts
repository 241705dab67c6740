import type { Random } from './time.ts';

/** Every place where a run can go wrong, and how often it does per pass through it while faults are on. */
export const points = {
  'produce.request-lost': 0.006, 'produce.reply-lost': 0.01, 'produce.reply-late': 0.01, 'produce.applied-late': 0.006, 'produce.not-leader': 0.006,
  'fetch.reply-lost': 0.003, 'fetch.not-leader': 0.003, 'fetch.out-of-range': 0.004, 'commit.reply-lost': 0.01, 'commit.request-lost': 0.006, 'commit.not-coordinator': 0.006,
  'heartbeat.lost': 0.01, 'join.reply-lost': 0.02, 'metadata.lost': 0.01, 'offsets.not-leader': 0.01, 'offsets.old-end': 0.5,
  'http.connect-slow': 0.25, 'http.connect-refused': 0.01, 'http.reset-before': 0.015, 'http.reset-after': 0.02, 'http.timeout-after-commit': 0.01, 'http.applied-after-timeout': 0.006, 'http.slow': 0.1, 'http.slow-way': 0.05, 'http.429': 0.008, 'http.429-for-long': 0.04, 'http.503': 0.02, 'http.400': 0.006,
  'poll.refused': 0.03, 'poll.reset': 0.03, 'poll.slow': 0.05, 'poll.cut': 0.03,
} as const;
/** Faults of the plan: each at a chosen time. */
export const planned = ['leader.move', 'broker.down', 'coordinator.move', 'compact', 'instance.crash', 'instance.crash-disk-lost', 'instance.stop', 'instance.restart', 'vendor.subject-down', 'vendor.down', 'retention', 'redrive'] as const;
/** Faults of some runs, drawn apart from all others: with a new one the runs that do not have it stay as they are. */
export const apart = ['control.away'] as const;
export type Point = keyof typeof points | (typeof planned)[number] | (typeof apart)[number];

export interface Faults {
  on: boolean;
  readonly counts: Map<Point, number>;
  /** Whether it happens at this pass; counted when it does. */
  hit(point: keyof typeof points): boolean;
  /** The same with a random of its own, and not counted: whether it made a difference is known later. */
  hitBy(point: keyof typeof points, random: Random): boolean;
  count(point: Point): void;
}

export function createFaults(random: Random): Faults {
  const counts = new Map<Point, number>();
  const faults: Faults = {
    on: false,
    counts,
    count(point) { counts.set(point, (counts.get(point) ?? 0) + 1); },
    hitBy: (point, of) => faults.on && of() < points[point],
    hit(point) {
      if (!faults.on || random() >= points[point]) return false;
      faults.count(point);
      return true;
    },
  };
  return faults;
}
