/** What every service gets from its composition root, and what it is to it. */
import type { commonOptions, ConfigOf } from '@weir/config';
import type { Log, PartitionCounts, Serde } from '@weir/log';
import type { groupNames, TopicNames } from '@weir/pipeline';
import type { ReleaseFeed } from '@weir/release';
import type { KeyRing } from '@weir/seal';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Vault } from '@weir/vault';

/** Time and randomness enter here only, so that a simulation can replace them. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Monotonic milliseconds, comparable with GroupConsumer.leaseUntil(). */
  monotonic(): number;
  /** Uniform in [0, 1). */
  random(): number;
  /** setTimeout; the handle goes to clearTimer. */
  setTimer(callback: () => void, ms: number): unknown;
  clearTimer(handle: unknown): void;
}

export interface ServiceContext {
  readonly name: string;
  readonly config: ConfigOf<typeof commonOptions>;
  readonly log: Log;
  /** Over how many partitions `log` hashes keys; undefined = as many as it finds. */
  readonly counts?: PartitionCounts;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly groups: ReturnType<typeof groupNames>;
  readonly releases: ReleaseFeed;
  readonly vault: Vault;
  /** 32 bytes. */
  readonly workspaceKey: Buffer;
  /** Keys under which personal data is sealed; undefined = nothing is sealed. `serde` opens what is. */
  readonly keys?: KeyRing;
  /** Resolves with what makes the process stop, as Service.failed does. */
  readonly broken?: Promise<Error>;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly clock: Clock;
  /** Folder for this instance's local caches, e.g. <WEIR_DATA>/state/<service>/<instance>. */
  readonly stateDir: string;
}

export interface Readiness {
  readonly ready: boolean;
  /** Why not, for /readyz. */
  readonly reason?: string;
}

/** `app.ts` of every service exports `create<Name>(context, options): Service`. */
export interface Service {
  readonly name: string;
  /** Resolves when work has begun (assigned, tables caught up, or listening). */
  start(): Promise<void>;
  readiness(): Readiness;
  /** Graceful: take nothing new, finish or drop what is in flight, commit what is finished. */
  stop(): Promise<void>;
  /** Rejects never; resolves with the error that means the process must stop. */
  readonly failed: Promise<Error>;
}
