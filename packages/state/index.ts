export { createDeferredRows, type DeferredRows } from './deferred.ts';
export { createLateTable, type LateClock, type LateOptions } from './late-table.ts';
export { createRecent, type Recent } from './recent.ts';
export { createSortedHashes, hashOf, hexOf, type Hash, type SortedHashes } from './sorted-hashes.ts';
export { openTable, type Put, type Seen, type Table } from './table.ts';
export { createTopicTable, type Rebuild, type TopicTable, type TopicTableOptions } from './topic-table.ts';
