export { checkpointText, keptCheckpoints, keyId, newSigningKey, parseCheckpoint, signCheckpoint, signingKey, verifierOf, verifyCheckpoint, type Checkpoint, type Signer } from './checkpoint.ts';
export { appendLeaf, audited, decodeLeaf, encodeLeaf, leafId, type AuditLeaf } from './leaf.ts';
export { dropPending, keepPending, localLeaf, pendingLeaves, type PendingLeaf } from './pending.ts';
export { createTree, emptyRoot, leafHash, nodeHash, verifyConsistency, verifyInclusion, type Tree } from './tree.ts';
export { verifyLog, verifyTree, type LogFinding } from './verify.ts';
