export { createAccountQuota, type AccountQuota, type QuotaShare, type QuotaState, type Want } from './account.ts';
export { askedPauseMs } from './asked-pause.ts';
export { callClasses, rankOf, yieldEvery, type CallClass } from './classes.ts';
export { costOf, timeFor, type QuotaCost } from './cost.ts';
export { bucketOf, drawOf, readBackDraw, type Draw } from './draw.ts';
export { planBuckets, steadyPerSecond, type Limit, type Rate } from './limits.ts';
export { createUnreserved, mostReserved, type QuotaReserve } from './reserve.ts';
export { readRateHeaders, standardHeaders, type ToldRate } from './rate-headers.ts';
