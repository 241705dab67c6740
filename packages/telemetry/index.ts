export { createLogger } from './logger.ts';
export { childTraceparent, newTraceparent, parseTraceparent, traceIdOf } from './traceparent.ts';
