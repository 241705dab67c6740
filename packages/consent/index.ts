export { createConsentBarrier, type ConsentBarrier, type ConsentBarrierPorts, type Marks } from './barrier.ts';
export { createConsentLease, type ConsentLease, type ConsentReport } from './lease.ts';
export { createConsentTables, type ConsentPorts, type ConsentTables, type StoredState } from './tables.ts';
