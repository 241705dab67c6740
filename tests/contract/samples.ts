import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Json, JsonObject } from '@weir/adapter';

/** The vendors' own samples, outside of this repository; tests that need them skip without them and say so. */
const dir = resolve(import.meta.dirname, '../../../shared/vendor-samples');
export const samplesPresent = existsSync(dir);
if (!samplesPresent) console.warn(`skipped: ${dir} is not there, so the vendors' samples are not tried`);

export const readSample = (path: string): any => JSON.parse(readFileSync(join(dir, path), 'utf8'));
export const segmentFiles = (): string[] => (samplesPresent ? readdirSync(join(dir, 'segment')).filter((f) => f.endsWith('.json')).sort() : []);

/** analytics.js calls as the API gets them: https://segment.com/docs/connections/spec/ and the signatures of the library. */
function apiCall(method: string, args: readonly Json[], id: string): JsonObject {
  const common = { type: method, anonymousId: 'anon-1', messageId: id };
  const texts = args.filter((a) => typeof a === 'string') as string[];
  const objects = args.filter((a) => a !== null && typeof a === 'object') as JsonObject[];
  const options = objects[1] ?? {};
  switch (method) {
    case 'identify': return { ...common, ...(texts[0] === undefined ? {} : { userId: texts[0] }), traits: objects[0] ?? {}, ...options };
    case 'group': return { ...common, groupId: texts[0] ?? null, traits: objects[0] ?? {}, ...options };
    case 'track': return { ...common, event: texts[0] ?? null, properties: objects[0] ?? {}, ...options };
    case 'alias': return { ...common, userId: texts[0] ?? null, ...(texts[1] === undefined ? {} : { previousId: texts[1] }), ...options };
    default: return { ...common, name: texts.at(-1) ?? null, ...(texts.length > 1 ? { category: texts[0]! } : {}), properties: objects[0] ?? {}, ...options };
  }
}

export interface SegmentSamples {
  readonly calls: readonly { readonly line: number; readonly call: JsonObject }[];
  /** Headings of blocks that print a part of a call, not a call. */
  readonly parts: readonly (string | null)[];
}

/** The calls of one page of the Segment spec: bodies as printed, library calls rewritten to API calls. */
export function segmentSamples(file: string): SegmentSamples {
  const blocks = readSample(`segment/${file}`) as { line: number; heading: string | null; body?: JsonObject; method?: string; args?: Json[] }[];
  const isCall = (b: (typeof blocks)[number]): boolean => b.method !== undefined || 'type' in b.body! || 'action' in b.body!;
  return {
    calls: blocks.filter(isCall).map((b) => ({ line: b.line, call: b.body ?? apiCall(b.method!, b.args!, `${file}-${b.line}`) })),
    parts: blocks.filter((b) => !isCall(b)).map((b) => b.heading),
  };
}

const stripeEvent = (type: string, object: Json): JsonObject => ({ id: `evt_${type}`, object: 'event', api_version: null, created: 1_767_323_045, data: { object }, livemode: false, pending_webhooks: 1, request: { id: null, idempotency_key: null }, type });

/** Stripe's fixture resources in each of the events that carry them. */
export function stripeSamples(): JsonObject[] {
  const { customer, subscription } = readSample('stripe/fixtures3.json').resources as Record<string, Json>;
  return [
    ...['created', 'updated', 'deleted'].map((t) => stripeEvent(`customer.${t}`, customer!)),
    ...['created', 'updated', 'deleted', 'paused', 'resumed', 'trial_will_end', 'pending_update_applied', 'pending_update_expired'].map((t) => stripeEvent(`customer.subscription.${t}`, subscription!)),
  ];
}
