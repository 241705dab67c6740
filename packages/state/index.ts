export { openTable, type Put, type Table } from './table.ts';
export { createTopicTable, type TopicTable, type TopicTableOptions } from './topic-table.ts';
