/** The compiled, immutable workspace that services run. */
import type { EscalationConfig } from './escalation.ts';
import type { QuotaReserve } from '@weir/http';
import type { Adapter, AdapterConfig, OperationManifest } from '@weir/adapter';
import type { CompiledContract, CompiledMapping } from '@weir/mapping';
import type { CompiledPolicy, ConflictRule } from '@weir/policy';

export interface ReleaseFile { readonly path: string; readonly content: string }

/** What a vendor grants an account over all its operations. */
export interface AccountLimit {
  readonly burst?: { readonly count: number; readonly perMs: number };
  readonly steady?: { readonly count: number; readonly perMs: number };
}

/** At most `max` deliveries of kind use a day for one subject; what is left out matches everything. */
export interface Cap {
  readonly name: string;
  readonly max: number;
  readonly purpose: string | undefined;
  readonly channel: string | undefined;
  readonly operation: string | undefined;
  readonly destination: string | undefined;
  /** IANA zone in which the day begins. */
  readonly timezone: string;
  /** Over it: denied with the reason `cap:<name>`, or kept until the next day begins. */
  readonly over: 'deny' | 'delay';
  readonly file: string;
  readonly line: number;
}

export interface SourceConfig {
  readonly name: string;
  readonly adapter: Adapter;
  /** Defaults filled; secrets still as `{ secret: NAME }` until `resolveConfig`. */
  readonly config: AdapterConfig;
  readonly mapping: CompiledMapping;
  readonly limits: { readonly bodyBytes: number; readonly items: number; readonly depth: number };
  readonly dedupeWindowMs: number;
  /** ISO 3166 code of where its people are, where a record does not say. */
  readonly region?: readonly string[];
  /** Whether what it says of where a person is takes the place of what was known (`saysRegion: last`), or is only added. */
  readonly movesPeople?: boolean;
  /** False: export and erasure of a person follow no link that it alone has said (`identityLinks: untrusted`). */
  readonly trustsLinks?: boolean;
  /** Vendor account whose quota its polls use. */
  readonly account: string;
  readonly accountLimit?: AccountLimit;
}

/** Another destination that may take what this one surely did not. */
export interface SecondVendor {
  readonly destination: string;
  readonly operation: string;
  /** How long the first must be away, ms. */
  readonly afterMs: number;
  /** `order`: the first as long as it is there; `measured`: whichever a delivery is expected to be through sooner. */
  readonly prefer: 'order' | 'measured';
}

export interface DestinationConfig {
  readonly name: string;
  readonly adapter: Adapter;
  readonly config: AdapterConfig;
  readonly operations: Readonly<Record<string, OperationManifest>>;
  readonly enabled: boolean;
  /** Calls in flight at once for this destination and instance. */
  readonly concurrency: number;
  readonly retryHorizonMs: number;
  /** ISO 3166 codes of where it keeps data. */
  readonly region?: readonly string[];
  /** What it needs of the records that it gets. */
  readonly contract?: CompiledContract;
  /** Vendor account whose quota its calls use; destinations and polled sources that name the same one share it. */
  readonly account: string;
  readonly accountLimit?: AccountLimit;
  /** Operation → operations that do the same, of which each call takes the best (`via:` of the routes). */
  readonly paths: ReadonlyMap<string, readonly string[]>;
  /** Second vendors by `secondKey` of record and operation; absent = none. */
  readonly seconds?: ReadonlyMap<string, SecondVendor>;
  /** Hard caps, of this file and of the policies. */
  readonly caps: readonly Cap[];
}

export interface Release {
  /** `rel_` + 16 hex of the SHA-256 over (path, SHA-256 of content), sorted by path. */
  readonly hash: string;
  readonly files: readonly ReleaseFile[];
  readonly name: string;
  readonly escalation?: EscalationConfig;
  readonly sources: ReadonlyMap<string, SourceConfig>;
  /** A source that this release does not have, as the last one had it that did; absent, and undefined: not known. */
  readonly former?: (source: string) => SourceConfig | undefined;
  readonly destinations: ReadonlyMap<string, DestinationConfig>;
  /** Which source may re-open what another closed; absent = log order. */
  readonly consent?: ConflictRule;
  /** Links keep the sealed identifiers of the record that said so, and a change of consent that closes goes to vendors under them. Absent = no. */
  readonly linkedIdentifiers?: boolean;
  readonly policy: CompiledPolicy;
  /** By full canonical record name; those of single destinations not among them. */
  readonly contracts: ReadonlyMap<string, readonly CompiledContract[]>;
}

/** Which release runs. A switch happens at a record boundary: a stage asks `current()` once per record batch. */
export interface ReleaseFeed {
  /** The last incident of each destination. */
  incidents(): ReadonlyMap<string, Incident>;
  /** What people were told last, by `<destination>/<kind>`. */
  escalations(): ReadonlyMap<string, Escalation>;
  /** The last word on each destination's kill switch; a destination that was never switched is absent. */
  switches(): ReadonlyMap<string, DestinationSwitch>;
  /** What of an account's quota is to be left to others, the last announcement of each; it ends by itself. */
  reserves(): ReadonlyMap<string, QuotaReserve>;
  /** Called after a kill switch was read, and `position` is behind it. Returns an unsubscribe function. */
  onSwitch(listener: (change: DestinationSwitch) => void): () => void;
  /** Next offset of weir.control that is not read: whatever was switched before it is in `switches`. 0 while the brokers say that it is not on the topic: what was switched there since is not known. */
  position(): number;
  /** Code of what following weir.control failed with; undefined = it was followed since. */
  trouble(): string | undefined;
  /** How old what is known may be, ms: since a broker was asked last that had no more than was read, by the stricter of the monotonic and the wall clock. */
  ageMs(): number;
  /** Throws release-missing before the first release was read. */
  current(): Release;
  /** Called after a new release became current, and at once where that is another one than `since`: it came while its reader was being started. Returns an unsubscribe function. */
  onChange(listener: (release: Release) => void, since?: Release): () => void;
  close(): Promise<void>;
}

/** A destination that is paused for its credential (`incident/<destination>` on weir.control). */
export interface Incident {
  readonly destination: string;
  readonly code: string;
  /** Ms since the epoch. */
  readonly since: number;
  /** Null while it lasts. */
  readonly until: number | null;
}

/** Trouble of a destination that people were told of (`escalation/<destination>/<kind>` on weir.control). */
export interface Escalation {
  readonly destination: string;
  readonly kind: 'breaker' | 'credential';
  readonly code: string;
  /** Ms since the epoch. */
  readonly since: number;
  /** Null while it lasts. */
  readonly until: number | null;
}

/** Kill switch of a destination (`switch/<destination>` on weir.control). */
export interface DestinationSwitch {
  readonly destination: string;
  readonly paused: boolean;
  readonly reason: string | null;
  readonly by: string;
  /** Ms since the epoch. */
  readonly at: number;
}
