export { compileRelease, withDefaults, type CompileContext } from './compile.ts';
export { isSecretRef, resolveConfig, secretNames } from './config.ts';
export { applyAudited, applyRelease, controlKeys, createReleaseFeed, leafHeader, saveIncident, saveSwitch, secretsOf } from './feed.ts';
export { readWorkspace, releaseHash } from './workspace.ts';
export { boundReasons, encodeAll, type Encodable, type Encoded } from './encode.ts';
export { createKeyedCache, identifiersOf, linksOf } from './identity.ts';
export { normalize, rawHeaders, type Canonical, type Normalized, type RawHeaders } from './normalize.ts';
export * from './types.ts';
