import type { LogAdmin } from '@weir/log';

/** Lag that is as good as none. */
const never = 100 * 365 * 86_400_000;

/**
 * For how long what was written over on a compacted topic stands there still, at most, ms: until its segment is rolled, and the lag within
 * which the brokers compact a rolled one. A segment is rolled when something is written to its partition. Null = they do not tell, or
 * compact when they like (`max.compaction.lag.ms` is not set).
 */
export async function compactedAfter(admin: Pick<LogAdmin, 'describeTopics'>, topic: string): Promise<number | null> {
  // A receipt is shown also while no broker answers.
  const [spec] = await admin.describeTopics([topic]).catch(() => []);
  const ms = Number(spec?.config['segment.ms'] || Number.NaN) + Number(spec?.config['max.compaction.lag.ms'] || Number.NaN);
  return ms < never ? ms : null;
}
