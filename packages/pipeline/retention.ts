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

/** Value of `retention.ms` as a duration: -1, unset or no number is for ever. */
export function retentionOf(config: Readonly<Record<string, string>> | undefined): number {
  const value = Number(config?.['retention.ms'] ?? -1);
  // A compacted topic without delete keeps by key, whatever retention.ms says.
  const deletes = (config?.['cleanup.policy'] ?? 'delete').split(',').some((p) => p.trim() === 'delete');
  return Number.isFinite(value) && value >= 0 && deletes ? value : Number.POSITIVE_INFINITY;
}
