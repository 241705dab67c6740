import { findWeirError } from '@weir/errors';
import type { Release, ReleaseFile, SourceConfig } from './types.ts';

/** So many are looked at: each is compiled in one turn of the event loop. */
const maxLooked = 5;

export interface FormerSources {
  /** A source that the running release does not have; undefined = none of the stored ones gives it. */
  of(source: string): SourceConfig | undefined;
  /** These files are the newest of the stored: what was found of their sources counts no longer. */
  renew(files: readonly ReleaseFile[]): void;
}

const fileOf = (source: string): string => `sources/${source}.yaml`;

/**
 * A source that a release does not have, as the last of the stored ones that had it, where that still compiles: what it said of
 * consent before it went is read by that. The last five are tried, each source is looked for once, and one that does not compile is
 * compiled once. @param stored by hash, the newest last
 */
export function formerSources(stored: ReadonlyMap<string, readonly ReleaseFile[]>, compile: (files: readonly ReleaseFile[]) => Release): FormerSources {
  /** By file. */
  const found = new Map<string, SourceConfig | undefined>();
  /** Hashes of those that do not compile. */
  const broken = new Set<string>();

  function look(source: string): SourceConfig | undefined {
    const had = [...stored].filter(([, files]) => files.some(({ path }) => path === fileOf(source)));
    for (const [hash, files] of had.slice(-maxLooked).reverse()) {
      if (broken.has(hash)) continue;
      try {
        return compile(files).sources.get(source);
      } catch (error) {
        if (findWeirError(error) === undefined) throw error;
        broken.add(hash);
      }
    }
    return undefined;
  }

  return {
    of(source) {
      const file = fileOf(source);
      if (!found.has(file)) found.set(file, look(source));
      return found.get(file);
    },
    renew(files) {
      for (const { path } of files) found.delete(path);
    },
  };
}
