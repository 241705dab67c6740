import { classifyFailure, objectOf, parseJson, type Destination, type HttpFailure, type HttpResponse, type Json, type JsonObject, type ReadBack, type VerdictTable } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import { expected } from './requests.ts';

/** Everything of `wanted` is in `found`; e-mail addresses without regard to case, as Klaviyo keeps them. */
function holds(found: Json | undefined, wanted: Json, key = ''): boolean {
  if (wanted !== null && typeof wanted === 'object' && !Array.isArray(wanted)) return Object.entries(wanted).every(([k, v]) => holds(objectOf({ found: found ?? null }, 'found')?.[k], v, k));
  if (key === 'email' && typeof found === 'string' && typeof wanted === 'string') return found.toLowerCase() === wanted.toLowerCase();
  return JSON.stringify(found ?? null) === JSON.stringify(wanted);
}

/** The profiles of an answer; undefined when it is no list of resources. */
function profilesOf(body: Buffer): JsonObject[] | undefined {
  try {
    const parsed = parseJson(body);
    const data = parsed !== null && typeof parsed === 'object' && !Array.isArray(parsed) ? parsed['data'] : undefined;
    return Array.isArray(data) && data.every((d) => d !== null && typeof d === 'object' && !Array.isArray(d)) ? data as JsonObject[] : undefined;
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return undefined;
  }
}

/**
 * A look at the profile: one that is not there was not imported, one that has everything that was sent was. One that has
 * something else was not imported, or was changed since: that is not told. Events cannot be found: what the API gives of
 * one holds no unique_id.
 */
export function createReadBack(get: (path: string, config: Parameters<Destination['request']>[2]) => ReturnType<Destination['request']>, verdicts: VerdictTable): NonNullable<Destination['verify']> {
  return {
    request: (delivery, _key, config) => get(`/api/profiles?filter=${encodeURIComponent(expected(delivery).filter)}&additional-fields%5Bprofile%5D=subscriptions`, config),
    classify(response: HttpResponse | HttpFailure, delivery): ReadBack {
      const verdict = 'failure' in response ? classifyFailure(response) : verdicts.verdict(response);
      if (verdict.kind === 'permanent' || 'failure' in response) return verdict.kind === 'permanent' || verdict.kind === 'ok' ? { kind: 'unknown', detail: verdict.detail } : verdict;
      if (verdict.kind !== 'ok') return verdict;
      const profiles = profilesOf(response.body);
      if (profiles === undefined) return { kind: 'unknown', detail: 'the answer is no list of profiles' };
      const { attributes, consents } = expected(delivery);
      if (profiles.length === 0) return { kind: 'not-applied', detail: 'there is no such profile' };
      const has = objectOf(profiles[0], 'attributes') ?? {};
      const consented = consents.every(([channel, consent]) => objectOf(objectOf(objectOf(has, 'subscriptions'), channel), 'marketing')?.['consent'] === consent);
      return holds(has, attributes) && consented ? { kind: 'applied', detail: 'the profile has what was sent' } : { kind: 'unknown', detail: 'the profile differs: it was not applied, or changed since' };
    },
  };
}
