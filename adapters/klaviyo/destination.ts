import { parseJson, retryAfterMs, type Destination, type HttpFailure, type HttpResponse, type Json, type Verdict } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import { revision } from './manifest.ts';
import { build } from './requests.ts';

/** Codes and pointers of a JSON:API error document; never its free text, which may repeat the person's data. */
function errorsOf(body: Buffer): string {
  let parsed: Json;
  try {
    parsed = parseJson(body.subarray(0, 64 * 1024), 16);
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return '';
  }
  const errors = parsed !== null && typeof parsed === 'object' && !Array.isArray(parsed) && Array.isArray(parsed['errors']) ? parsed['errors'] : [];
  return errors.slice(0, 5).map((e) => {
    const error = (e !== null && typeof e === 'object' && !Array.isArray(e) ? e : {}) as { code?: Json; source?: { pointer?: Json } };
    return `${String(error.code ?? '')} ${String(error.source?.pointer ?? '')}`.trim();
  }).join('; ').slice(0, 300);
}

function classifyStatus(response: HttpResponse): Verdict {
  const { status } = response;
  const detail = `HTTP ${status} ${errorsOf(response.body)}`.trim();
  if (status >= 200 && status < 300) return { kind: 'ok', effect: 'done' };
  if (status === 401 || status === 403) return { kind: 'auth-broken', effect: 'none', code: 'credential-rejected', detail };
  if (status === 429) return { kind: 'throttled', effect: 'none', code: 'vendor-throttled', retryAfterMs: retryAfterMs(response.headers), detail };
  if (status === 408 || status === 409 || status >= 500) return { kind: 'retry', effect: 'maybe', code: 'vendor-unavailable', retryAfterMs: retryAfterMs(response.headers), detail };
  return { kind: 'permanent', effect: 'none', code: 'delivery-rejected', detail };
}

function classify(response: HttpResponse | HttpFailure): Verdict {
  if (!('failure' in response)) return classifyStatus(response);
  const { failure, sent, detail } = response;
  if (failure === 'forbidden-address' || failure === 'redirect') return { kind: 'permanent', effect: sent ? 'maybe' : 'none', code: 'address-forbidden', detail };
  if (failure === 'too-large') return { kind: 'permanent', effect: 'maybe', code: 'response-too-large', detail };
  return { kind: 'retry', effect: sent ? 'maybe' : 'none', code: 'vendor-unavailable', detail: `${failure}: ${detail}` };
}

export const destination: Destination = {
  request(delivery, key, config) {
    const { path, body } = build(delivery, key, config);
    return {
      method: 'POST', url: `${String(config['baseUrl']).replace(/\/$/, '')}${path}`, body,
      headers: { 'authorization': `Klaviyo-API-Key ${String(config['apiKey'])}`, 'accept': 'application/vnd.api+json', 'content-type': 'application/vnd.api+json', revision, 'user-agent': 'weir/0.1' },
    };
  },
  classify,
};
