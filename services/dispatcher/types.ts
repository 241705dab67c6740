import type { LogRecord } from '@weir/log';

/** weir.internal.Delivery, decoded. Times are ms since the epoch. */
export interface DeliveryValue {
  readonly outputId: string;
  readonly eventId: string;
  readonly destination: string;
  readonly operation: string;
  readonly kind: string;
  readonly recordType: string;
  readonly payload: Buffer;
  readonly itemHash: string;
  readonly source: string;
  readonly acceptedAt: number;
  readonly decidedAt: number;
  readonly release: string;
  readonly rule: string;
  readonly purpose: string | null;
  readonly channel: string | null;
  readonly topic: string | null;
  readonly legalBasis: string | null;
  readonly consent: ReadonlyArray<{ readonly id: string; readonly purpose: string; readonly state: string; readonly version: number }>;
  readonly consentOffsets: readonly number[];
  readonly identityOffsets: readonly number[];
  readonly ids: readonly string[];
  readonly notBefore: number | null;
  readonly intent: string;
  /** The same for the second vendor of its route; absent in records of the version before. */
  readonly standby?: { readonly destination: string; readonly operation: string; readonly refused: string | null; readonly rule: string | null; readonly payload: Buffer | null; readonly notBefore: number | null } | null;
  /** How it ended at the first vendor, where this is the second. */
  readonly failedOver?: { readonly destination: string; readonly operation: string; readonly key: string; readonly reason: string; readonly detail: string | null; readonly attempts: number; readonly status: number | null; readonly at: number } | null;
}

/** weir.internal.LedgerEnd, decoded. */
export interface EndValue {
  readonly key: string;
  readonly outputId: string;
  readonly eventId: string;
  readonly operation: string;
  readonly state: EndState;
  readonly effect: 'none' | 'maybe' | 'done';
  readonly code: string | null;
  readonly reason: string | null;
  readonly status: number | null;
  readonly attempts: number;
  readonly generation: number;
  readonly itemHash: string;
  readonly subject: string;
  readonly offset: number;
  readonly at: number;
  readonly acceptedAt: number;
  /** Start of the first call that may have had an effect, ms; 0 = none. */
  readonly maybeSince: number;
  readonly purpose: string | null;
  readonly channel: string | null;
  /** Of failed-over only. */
  readonly owner: string | null;
  readonly toDestination: string | null;
  readonly toOperation: string | null;
  readonly toKey: string | null;
  /** Of a profile: offset on weir.dispatch.<destination> of the first record of the delivery; -1 = not known. Absent in ends of the version before. */
  readonly firstOffset?: number;
  /** Of a delivered one: what it set (objectOf); empty = not known. Absent in ends of the version before. */
  readonly object?: string;
}

export type EndState = 'delivered' | 'denied' | 'dead-lettered' | 'quarantined' | 'superseded' | 'expired' | 'failed-over';

/** weir.internal.LedgerPark, decoded. */
export interface ParkValue {
  readonly subject: string;
  readonly fromOffset: number;
  readonly due: number;
  readonly reason: string;
  readonly attempts: number;
  readonly maybeSince: number;
  readonly since: number;
  /** Of a subject of which nothing else has been called: since when its first restrict may have been, ms; 0 = it surely was not. -1, or absent in markers of the version before = not known. */
  readonly restrictCalledSince?: number;
}

/** One delivery on its way. Mutable: attempts and maybeSince grow with the calls. */
export interface Task {
  readonly delivery: DeliveryValue;
  readonly subject: string;
  /** Offset on weir.dispatch.<destination>, also when it was read from the parked topic. */
  readonly offset: number;
  /** Offset on weir.parked.<destination>, or -1 when it was read from the dispatch topic. */
  readonly parkedOffset: number;
  /** When it was put on weir.dispatch.<destination>, ms. */
  readonly queuedAt: number;
  readonly record: LogRecord;
  /** Id of the key that the payload was sealed under (as `sealedBy` gives it); empty = it was not. `delivery.payload` is open already, unless the key was destroyed. */
  readonly sealedBy: string;
  /** Replay or redrive order id, empty for live traffic. */
  readonly redrive: string;
  key: string;
  generation: number;
  /** Of a profile: offset on weir.dispatch.<destination> of the first record of the delivery, this one or the one that an order put back; -1 = not known. */
  firstOffset: number;
  /** What it sets (objectOf); empty = not known yet: of what is no profile, until its record was read for a call, or an order put it back. */
  object: string;
  /** Calls made. */
  attempts: number;
  /** Start of the first call of this record that may have had an effect, by this owner or an earlier one, ms since the epoch; 0 = none. */
  maybeSince: number;
  /** Of a redrive: since when an earlier record of the delivery may have had an effect, by an end that stands in the ledger, ms since the epoch; 0 = surely not. */
  doubtSince: number;
  /** The vendor has answered that no earlier call took effect, whatever the ledger says. */
  notApplied: boolean;
  /** Those of them that asked whether it took effect. */
  readBacks: number;
  /** Operation whose path the next call takes, and the last took; empty = its own. */
  path: string;
  /** Paths that it cannot be built for; absent = none is known. */
  unbuilt?: readonly string[];
  /** Deliveries in its next call at most, since one of more was refused as a whole; 0 = as many as the operation takes. */
  batchLimit: number;
  /** What it went ahead of, for the outcome (I4); empty = nothing. */
  ahead: string;
  /** The tables of consent allowed it when they had this version, and do until then (ms) while they have it. */
  allowed?: { readonly version: number; readonly until: number };
  /** Last answer, for the outcome. */
  last: AttemptSummary | undefined;
  /** Undefined = its calls have met none. */
  trouble: Trouble | undefined;
}

/** Calls of a delivery that failed by trouble that is not the whole destination's (its limit, its credential), ms since the epoch: the first that is known, from which the retry horizon counts, and the last. */
export interface Trouble {
  readonly since: number;
  readonly at: number;
}

export interface AttemptSummary {
  readonly at: number;
  readonly durationMs: number;
  readonly verdict: string;
  readonly effect: string;
  /** Why it ended nothing; absent of a read-back. */
  readonly code?: string;
  readonly status: number | null;
  /** Operation whose path was taken, where there are several. */
  readonly path: string | null;
}
