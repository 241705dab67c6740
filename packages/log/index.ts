export { createLog } from './log.ts';
export { compileEncoder, compileFields, room, varint, type FieldWrite, type Sink, type Write } from './encoder.ts';
export { createSerde, defaultLimits } from './serde.ts';
export { fieldReader, type FieldReader } from './fields.ts';
export { partitionOf } from './murmur2.ts';
export { createPartitionCounts, type PartitionCounts } from './partition-counts.ts';
export { readUpTo } from './read-up-to.ts';
export { copyBytes, handOn, headerBytes, HeaderWalk, Packer, RecordBody } from './packed.ts';
export * from './types.ts';
