import { hash } from 'node:crypto';
import type { AdapterConfig } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import { resolveConfig, secretNames, type Release, type SourceConfig } from '@weir/release';
import type { Vault } from '@weir/vault';

/** The sources of one release with their secrets. Never log it. */
export interface Sources {
  readonly all: ReadonlyMap<string, SourceConfig>;
  /** The config with the secrets before their rotation while both are accepted; asked per request, so that an overlap ends on time. */
  previous(source: SourceConfig): AdapterConfig | undefined;
  webhook(name: string): SourceConfig | undefined;
  /** Whether webhooks of this source cannot be judged now, because a secret of it cannot be had: what is sent to it is to come again. */
  waits(name: string): boolean;
  /** False: a source is closed because a secret of it cannot be had. */
  readonly complete: boolean;
  readonly hasSegment: boolean;
  /** A Segment source waits as `waits` says: a key that names no open one may be its. */
  readonly segmentWaits: boolean;
  /** The Segment source of a write key. With only one Segment source, open or waiting, it is that one, whatever the key. */
  segment(writeKey: string | undefined): SourceConfig | undefined;
}

/** `closed` is told of every source that cannot run because a secret of it is missing or, of a poller, cannot be sent; the others go on. */
export function resolveSources(release: Release, options: { readonly vault: Vault; readonly sandboxUrl?: string; readonly closed: (name: string, error: unknown) => void }): Sources {
  const all = new Map<string, SourceConfig>();
  const waiting = new Map<string, SourceConfig>();
  let complete = true;
  for (const source of release.sources.values()) {
    try {
      all.set(source.name, { ...source, config: resolveConfig(source.config, { ...options, sentBy: source.adapter.source?.kind === 'poll' ? source.adapter.manifest.source?.config : undefined }) });
    } catch (error) {
      complete = false;
      if (findWeirError(error)?.code === 'secret-unavailable') waiting.set(source.name, source);
      options.closed(source.name, error);
    }
  }
  const isSegment = (s: SourceConfig): boolean => s.adapter.manifest.name === 'segment';
  const segment = [...all.values()].filter(isSegment);
  const segmentWaits = [...waiting.values()].some(isSegment);
  // Looked up by digest: how long it takes says nothing about how much of a key was right.
  const byKey = new Map(segment.map((s) => [hash('sha256', String(s.config['writeKey'])), s]));
  const previous = (source: SourceConfig): AdapterConfig | undefined => {
    const given = release.sources.get(source.name)?.config;
    return given !== undefined && secretNames(given).some(({ name }) => options.vault.previous(name) !== undefined) ? resolveConfig(given, { ...options, previous: true }) : undefined;
  };
  const byPreviousKey = (writeKey: string): SourceConfig | undefined => segment.find((s) => {
    const before = previous(s);
    return before !== undefined && hash('sha256', String(before['writeKey'])) === hash('sha256', writeKey);
  });
  return {
    all,
    complete,
    previous,
    webhook(name) {
      const source = all.get(name);
      return source?.adapter.source?.kind === 'webhook' ? source : undefined;
    },
    waits: (name) => waiting.get(name)?.adapter.source?.kind === 'webhook',
    hasSegment: segment.length > 0,
    segmentWaits,
    segment: (writeKey) => (segment.length === 1 && !segmentWaits ? segment[0] : writeKey === undefined ? undefined : byKey.get(hash('sha256', writeKey)) ?? byPreviousKey(writeKey)),
  };
}
