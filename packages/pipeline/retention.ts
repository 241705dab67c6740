/** Share of a topic's retention at which lag alarms, and at which a record must leave for the dead letters before the broker deletes it. */
export const alarmShare = 0.5;
export const expiringShare = 0.9;

/** Timestamp (ms) at and before which a record of a topic with this retention is expiring; -Infinity where nothing is deleted by age. */
export function expiringBefore(retentionMs: number, now: number): number {
  return Number.isFinite(retentionMs) ? now - retentionMs * expiringShare : Number.NEGATIVE_INFINITY;
}

/** How old an event may be (ms since it was accepted) that is sent still: the ledger remembers all of its calls, those of a repetition within the dedupe window among them. */
export function oldestSent(ledgerRetentionMs: number, dedupeWindowMs: number): number {
  return ledgerRetentionMs - dedupeWindowMs;
}

/**
 * How long the brokers keep what is on a topic by its age, ms; Infinity = for ever (`retention.ms` is -1, or the topic is compacted and deletes nothing).
 * `unknown` is given where they do not tell. Kafka tells the value in force, its own `log.retention.ms` where a topic sets none: a config without
 * one says neither 7 days nor anything else. An erasure must not say that data is gone earlier than it is, and nothing is deleted because of a
 * guess: for ever, unless the caller knows better. One that counts on data being there must take for ever as not known.
 */
export function retentionOf(config: Readonly<Record<string, string>> | undefined, unknown = Number.POSITIVE_INFINITY): number {
  // A compacted topic without delete keeps by key, whatever retention.ms says.
  const deletes = (config?.['cleanup.policy'] ?? 'delete').split(',').some((p) => p.trim() === 'delete');
  if (!deletes) return Number.POSITIVE_INFINITY;
  const ms = Number(config?.['retention.ms'] || Number.NaN);
  return Number.isNaN(ms) ? unknown : ms < 0 ? Number.POSITIVE_INFINITY : ms;
}
