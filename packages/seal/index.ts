export { isReadable, isSealed, seal, sealedBy, sealedMagic, sealKey, sealOverhead, sealTo, unseal, type SealKey } from './envelope.ts';
export { identifiersSealer, linkSource, linkValue, openIdentifiers, sealIdentifiers, type ClearIdentifiers, type LinkValue } from './identifiers.ts';
export { createKeyRing, type KeyRing, type KeyRingPorts } from './key-ring.ts';
export { sealedSerde } from './sealed-serde.ts';
export { expiredRawOwners, rawKeyEnd, rawOwner, rawOwners } from './raw.ts';
