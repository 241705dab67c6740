export { compilePurposes, compileRoutes, compileRules, durationMs, type CompiledPolicy, type CompiledRoute, type CompiledRule } from './compile.ts';
export { checkConsent, checkUse, closure, consentKey, consentPart, foldConsent, logOrder, maxLinked, type ConsentAnswer, type ConsentChange, type ConsentEntry, type StatesOf } from './consent.ts';
export { createLimits, decide, quietUntil, type Decision, type DecisionContext, type Subject } from './decide.ts';
export * from './types.ts';
