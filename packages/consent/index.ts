export { createConsentTables, type ConsentPorts, type ConsentTables, type StoredState } from './tables.ts';
