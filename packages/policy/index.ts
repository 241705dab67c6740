export { compilePurposes, compileRoutes, compileRules, durationMs, type CompiledPolicy, type CompiledRoute, type CompiledRule } from './compile.ts';
export { checkConsent, closure, consentKey, foldConsent, type ConsentAnswer, type ConsentChange } from './consent.ts';
export { createLimits, decide, quietUntil, type Decision, type DecisionContext, type Subject } from './decide.ts';
export * from './types.ts';
