/** The compiled, immutable workspace that services run. */
import type { Adapter, AdapterConfig, OperationManifest } from '@weir/adapter';
import type { PolicyRule, Purpose, Route } from '@weir/policy';

export interface ReleaseFile { readonly path: string; readonly content: string }

export interface SourceConfig {
  readonly name: string;
  readonly adapter: Adapter;
  /** Defaults filled; secrets still as references until `resolveConfig`. */
  readonly config: AdapterConfig;
  /** Path of the mapping in the release's files. */
  readonly mapping: string;
  readonly limits: { readonly bodyBytes: number; readonly items: number; readonly depth: number };
  readonly dedupeWindowMs: number;
}

export interface DestinationConfig {
  readonly name: string;
  readonly adapter: Adapter;
  readonly config: AdapterConfig;
  readonly operations: Readonly<Record<string, OperationManifest>>;
  readonly routes: readonly Route[];
  readonly enabled: boolean;
  /** Calls in flight at once for this destination and instance. */
  readonly concurrency: number;
  readonly retryHorizonMs: number;
}

export interface Release {
  readonly hash: string;
  readonly files: readonly ReleaseFile[];
  readonly name: string;
  readonly sources: ReadonlyMap<string, SourceConfig>;
  readonly destinations: ReadonlyMap<string, DestinationConfig>;
  readonly purposes: ReadonlyMap<string, Purpose>;
  readonly policies: readonly PolicyRule[];
  /** Contract documents (path → parsed YAML), by canonical record name. */
  readonly contracts: ReadonlyMap<string, ReleaseFile>;
}

/** Which release runs. A switch happens at a record boundary: a stage asks `current()` once per record batch. */
export interface ReleaseFeed {
  /** Throws release-missing before the first release was read. */
  current(): Release;
  /** Called after a new release became current. Returns an unsubscribe function. */
  onChange(listener: (release: Release) => void): () => void;
  close(): Promise<void>;
}
