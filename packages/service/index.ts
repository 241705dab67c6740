export { appendDeadlineMs } from './deadlines.ts';
export { systemClock } from './clock.ts';
export { closeContext, createContext } from './context.ts';
export { startOps, type OpsServer } from './ops.ts';
export { createProgress, type Progress } from './progress.ts';
export { createRetentionWatch, type RetentionWatch } from './retention.ts';
export { runService } from './run.ts';
export * from './types.ts';
export { armFailpoints } from './failpoints.ts';
