export { compileRelease, withDefaults, type CompileContext } from './compile.ts';
export { isSecretRef, resolveConfig, secretNames } from './config.ts';
export { applyAudited, applyRelease, controlKeys, createReleaseFeed, leafHeader, saveIncident, saveSwitch, secretsOf } from './feed.ts';
export { isPolicyTest } from './governance.ts';
export { assertPolicyTests, runPolicyTests, type PolicyTest } from './policy-tests.ts';
export { readWorkspace, releaseHash } from './workspace.ts';
export * from './types.ts';
export * from './roles.ts';
export { createTokenIndex, isApiToken, tokenKey, type StoredToken, type TokenIndex, type TokenView } from './tokens.ts';
