import type { HttpFailure, HttpRequest, HttpResponse } from '@weir/adapter';
import type { ConsentLease } from '@weir/consent';
import type { Appender, GroupConsumer, LogAdmin, Reader, Serde } from '@weir/log';
import type { TopicNames } from '@weir/pipeline';
import type { DestinationConfig, Release } from '@weir/release';
import type { KeyRing } from '@weir/seal';
import type { Clock, Progress, Turns } from '@weir/service';
import type { Table } from '@weir/state';
import type { Logger } from 'pino';
import type { SecondState } from './fail-over.ts';
import type { LedgerStore } from './ledger-store.ts';
import type { DispatcherMetrics } from './metrics.ts';
import type { Takeover } from './takeover.ts';
import type { DestinationQuota } from './quota.ts';

/** The guarded outbound client, as far as the dispatcher needs it. */
export interface HttpPort {
  /** `onBeforeWrite` runs in the tick of the socket write; false = nothing is sent. */
  call(request: HttpRequest, options: { deadlineMs: number; onBeforeWrite: () => boolean }): Promise<HttpResponse | HttpFailure>;
}

/** Consent and identity tables, read whole by this instance. */
export interface ConsentPort {
  /** Another number after every change of the tables; -1 while everything is closed. While it stays, `allows` answers the same until the answer's `until` (ms). */
  version(): number;
  /** True when the tables are at or past these offsets (per partition). */
  atLeast(consentOffsets: readonly number[], identityOffsets: readonly number[]): boolean;
  allows(ids: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: string | null, now: number): { readonly ok: true; readonly until?: number } | { readonly ok: false; readonly reason: string };
}

/** Retention in force of the destination's topics, ms; Infinity = for ever. */
export interface RetentionPort {
  ledgerMs(): number;
  dispatchMs(): number;
  parkedMs(): number;
  /** Told the timestamp of the oldest record that waits; undefined = none. */
  oldest(topic: string, partition: number, timestamp: number | undefined): void;
}

/** The part of one partition in what a destination may hold in memory. */
export interface DestinationWindow {
  readonly records: number;
  readonly bytes: number;
  /** Parked subjects with a head in hand, of each kind (restrict, use, expiring). */
  readonly heads: number;
}

/** What all partitions of one destination share. */
export interface DestinationPorts {
  readonly name: string;
  readonly topics: TopicNames;
  /** Consumer group that commits what is finished. */
  readonly group: string;
  readonly appender: Appender;
  readonly reader: Reader;
  readonly admin: LogAdmin;
  readonly serde: Serde;
  readonly http: HttpPort;
  readonly consent: ConsentPort;
  /** The right to start `use` calls, told to those who wait for a withdrawal to be applied. */
  readonly lease: Pick<ConsentLease, 'covers' | 'began'>;
  /** Keys of sealed payloads and marks of erasure; undefined = nothing is sealed. */
  readonly keys: Pick<KeyRing, 'open' | 'has' | 'erasedUntil' | 'find'> | undefined;
  readonly workspaceKey: Buffer;
  readonly ledger: LedgerStore;
  readonly clock: Clock;
  readonly turns: Turns;
  readonly logger: Logger;
  readonly metrics: DispatcherMetrics;
  /** Of the destination's vendor account. */
  readonly quota: DestinationQuota;
  /** Feeds /readyz: lag that stays without a commit. */
  readonly progress: Progress;
  readonly instance: string;
  readonly callTimeoutMs: number;
  readonly inLaneTries: number;
  readonly takeover: Takeover;
  readonly retention: RetentionPort;
  /** How long a sender may repeat an event, ms; of a source that is not in the release, the default. */
  dedupeWindowMs(source: string): number;
  release(): Release;
  /** Undefined when the running release does not have it. Secrets resolved. */
  destination(): DestinationConfig | undefined;
  /** As the running release has it, also while a secret cannot be had; undefined = it does not have it. */
  configured(): DestinationConfig | undefined;
  /** Another destination of this process, as a second vendor; undefined = it is not running, or has no such operation. */
  second(destination: string, operation: string): SecondState | undefined;
  /** Told what vendors say about the credential. */
  readonly credential: { rejected(): void; accepted(): void };
  /** Most of one partition that may be read and not committed: its part of what the destination holds in memory. */
  window(): DestinationWindow;
  /** Local, for parked subjects that only wait; what is in it is of this process alone. */
  readonly parkedTable: Table;
  consumer(): GroupConsumer;
  /** Something nobody declared: the process stops without a commit. */
  fail(error: unknown): void;
}
