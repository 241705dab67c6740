import type { JsonLimits } from '@weir/adapter';
import type { SourceConfig } from '@weir/release';

/** Levels that a body or a page has around its items, at most. */
const wrapping = 4;

/**
 * Limits of a whole body or page. A depth that the source lowers is one of its items: a deeper one ends as a dead letter with
 * its bytes, for a request that is refused for it would take the others with it, and a page would come again for ever. One that
 * it raises holds for what is around the items, too.
 */
export function bodyLimits({ limits, adapter }: Pick<SourceConfig, 'limits' | 'adapter'>): JsonLimits {
  const own = adapter.manifest.source?.limits.depth ?? limits.depth;
  return { items: limits.items, depth: limits.depth > own ? limits.depth + wrapping : own };
}
