export { createRecent, type Recent } from './recent.ts';
export { openTable, type Put, type Seen, type Table } from './table.ts';
export { createTopicTable, type Rebuild, type TopicTable, type TopicTableOptions } from './topic-table.ts';
