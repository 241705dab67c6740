export { checkDepth, defaultJsonLimits, oneObject, parseJson, sliceArray, sliceKey, type JsonLimits } from './json.ts';
export { hmac, isHeaderSafe, safeEqual } from './signing.ts';
export { objectOf, textOf } from './text.ts';
export * from './types.ts';
