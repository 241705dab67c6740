/** Where a delivery stands; what a replay does about it is in services/control/replay/standing.ts. */
export type Standing =
  /** Delivered, the vendor said so. */
  | 'confirmed'
  /** Never called, or called and surely without effect. */
  | 'notApplied'
  /** May have taken effect; the vendor still knows the key, or its rule makes a repetition harmless. */
  | 'unknownKeyed'
  /** May have taken effect, past the key window; the vendor can be asked. */
  | 'unknownReadable'
  /** May have taken effect, past the key window; nothing can tell. */
  | 'unknownHeld'
  /** The vendor was asked: it has it. */
  | 'applied'
  /** Consent or policy does not let it through today, as it stands. */
  | 'denied'
  /** A newer record of the subject was delivered since. */
  | 'superseded'
  /** Older than the ledger remembers. */
  | 'expired'
  /** On its way now: queued, retried or parked. */
  | 'pending'
  /** Went to the second vendor of its route, which has a record and an end of its own. */
  | 'failedOver'
  /** The event arrived before with another body. */
  | 'conflict'
  /** The running release has no such destination or operation. */
  | 'retired'
  /** The person is erased: it is not read. */
  | 'erased';
export const standings: readonly Standing[] = ['confirmed', 'notApplied', 'unknownKeyed', 'unknownReadable', 'unknownHeld', 'applied', 'denied', 'superseded', 'expired', 'pending', 'failedOver', 'conflict', 'retired', 'erased'];


/** What a vendor said when it was asked about an effect; `unreadable` = it can not be asked. */
export type ReadBackAnswer = 'applied' | 'not-applied' | 'unknown' | 'unreadable';

/** What a replay would do, before it does it. */
export interface ReplayPreview {
  /** Mapping and policy of the running release were run to know the deliveries of raw or canonical records. */
  readonly derived: boolean;
  readonly release: string;
  /** Retention has deleted what was put on the topic before this time (ms), of the range that was asked for; null = the range is whole. */
  readonly goneBefore: number | null;
  /** Selected, each delivery or event once. */
  readonly records: number;
  /** Copies of what was met before, and bytes that could not be read: passed over. */
  readonly repeated: number;
  readonly unreadable: number;
  /** Dead letters that wait for an approver. */
  readonly held: number;
  /** Of raw records: the running release refuses or drops them still. */
  readonly fails: number;
  readonly dropped: number;
  /** Nobody can read them: a raw item past its retention, or what was sealed under a key that an erasure destroyed. Absent in previews of before it was counted. */
  readonly keyDestroyed?: number;
  /** Ended before they were routed; the running release takes them. */
  readonly goesOn: number;
  readonly deliveries: Readonly<Record<Standing, number>>;
  /** Of the denied: policy would send less, or other values, than they carry. Absent in previews of before it was counted. */
  readonly otherwise?: number;
  /** Of the denied: decided by another release, or by the time, and the record that policy would have to look at is not there. */
  readonly undecided?: number;
  /** Answers of the vendors about unknown effects; all 0 without verify. */
  readonly verified: Readonly<Record<ReadBackAnswer, number>>;
  /** Records that would be put back. */
  readonly back: number;
  /**
   * Calls by destination and operation, batches as full as they may be; `readBacks`: questions to the vendor before a call.
   * How long everything under the limits that they count against takes, at least; null = none is stated.
   */
  readonly calls: ReadonlyArray<{ readonly destination: string; readonly operation: string; readonly calls: number; readonly deliveries?: number; readonly readBacks?: number; readonly perSecond: number | null; readonly seconds: number | null }>;
  /** What they use up of each stated limit; bucket null = of the account. `windows`: 1 = one whole window of the tightest. Absent in previews of before it was counted. */
  readonly limits?: ReadonlyArray<{ readonly account: string; readonly bucket: string | null; readonly calls: number; readonly perSecond: number; readonly seconds: number; readonly windows: number }>;
  /** The longest of these, or the order's own rate. Without a stated limit: null. */
  readonly seconds: number | null;
  /** Of a corrected replay: deliveries that differ, by field. */
  readonly differs: number;
  /** Of a corrected replay: deliveries that differ, too, and that an approver let through as they were; nothing corrects them. Absent in previews of before it was counted. */
  readonly approved?: number;
  readonly fields: Readonly<Record<string, number>>;
}
