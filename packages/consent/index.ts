export { createConsentBarrier, type ConsentBarrier, type ConsentBarrierPorts, type Marks } from './barrier.ts';
export { createConsentLease, type ConsentLease, type ConsentReport } from './lease.ts';
export { type KeptValue, type TrustsLink } from './link-values.ts';
export { type Trusted } from './links.ts';
export { createClearLinks, type ClearLinksPorts, type Unread } from './clear-links.ts';
export { createConsentTables, type ConsentOptions, type ConsentPorts, type ConsentTables, type StoredState } from './tables.ts';
export { stands } from './opened.ts';
export { createKnownRegions, type KnownRegions } from './known-regions.ts';
export { addedTo, movedTo, personRegion, regionKey, regionsIn, regionValue, type KnownRegion } from './regions.ts';
