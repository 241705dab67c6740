import { findWeirError } from '@weir/errors';
import type { Release, ReleaseFile, SourceConfig } from './types.ts';

/**
 * A source that a release does not have, as the last of the stored ones that had it, where that still compiles: what it said of
 * consent before it went is read by that. Each is looked for once. @param stored by hash, the newest last
 */
export function formerSources(stored: ReadonlyMap<string, readonly ReleaseFile[]>, compile: (files: readonly ReleaseFile[]) => Release): (source: string) => SourceConfig | undefined {
  const found = new Map<string, SourceConfig | undefined>();

  function look(source: string): SourceConfig | undefined {
    for (const files of [...stored.values()].reverse()) {
      if (!files.some(({ path }) => path === `sources/${source}.yaml`)) continue;
      try {
        return compile(files).sources.get(source);
      } catch (error) {
        if (findWeirError(error) === undefined) throw error;
      }
    }
    return undefined;
  }

  return (source) => {
    if (!found.has(source)) found.set(source, look(source));
    return found.get(source);
  };
}
