export { checkDepth, defaultJsonLimits, oneObject, parseJson, sliceArray, sliceBatch, slicePath, type JsonLimits } from './json.ts';
export { hmac, isHeaderSafe, safeEqual, signWebhook, staleness, verifyWebhook } from './signing.ts';
export { compileTemplate, compileUrlTemplate, type Scope, type Template, type TemplateContext } from './template.ts';
export { compilePattern, dottedPath, durationMs, objectOf, textOf, valueAt } from './text.ts';
export { classifyFailure, classifyStatus, retryAfterMs } from './verdicts.ts';
export { answerOf, compileAnswer, compileVerdicts, type Answer, type AnswerRule, type AnswerSpec, type VerdictSpec, type VerdictTable } from './verdict-table.ts';
export * from './types.ts';
