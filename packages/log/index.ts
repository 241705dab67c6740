export { createLog } from './log.ts';
export { createSerde, defaultLimits } from './serde.ts';
export { partitionOf } from './murmur2.ts';
export * from './types.ts';
