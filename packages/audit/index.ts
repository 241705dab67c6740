export { checkpointText, keyId, newSigningKey, parseCheckpoint, signCheckpoint, signingKey, verifierOf, verifyCheckpoint, type Checkpoint, type Signer } from './checkpoint.ts';
export { appendLeaf, decodeLeaf, encodeLeaf, leafId, type AuditLeaf } from './leaf.ts';
export { createTree, emptyRoot, leafHash, nodeHash, verifyConsistency, verifyInclusion, type Tree } from './tree.ts';
export { verifyLog, type LogFinding } from './verify.ts';
