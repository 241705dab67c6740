import type { HttpFailure, HttpResponse, Verdict } from './types.ts';

/** Retry-After (RFC 9110, 10.2.3) in ms: seconds, or a date measured from the answer's own Date. */
export function retryAfterMs(headers: HttpResponse['headers']): number | undefined {
  const value = headers['retry-after']?.trim();
  if (value === undefined) return undefined;
  if (/^\d{1,12}$/.test(value)) return Number(value) * 1000;
  const until = Date.parse(value);
  const from = Date.parse(headers['date'] ?? '');
  return Number.isNaN(until) || Number.isNaN(from) ? undefined : Math.max(0, until - from);
}

/**
 * What no answer means: never sent = surely no effect; else an effect is possible. An address that may not be called and an
 * answer that leads elsewhere are trouble of the destination (its DNS, its URL, an outage page), not of what is sent to it:
 * tried again. An answer that is too large will be so again, as will a request that cannot be sent.
 */
export function classifyFailure(failure: HttpFailure): Verdict {
  const effect = failure.sent ? 'maybe' : 'none';
  const detail = `${failure.failure}: ${failure.detail}`;
  switch (failure.failure) {
    case 'forbidden-address': case 'redirect': return { kind: 'retry', effect, code: 'address-forbidden', detail };
    case 'unsendable': return { kind: 'permanent', effect, code: 'delivery-unbuildable', detail };
    case 'too-large': return { kind: 'permanent', effect, code: 'response-too-large', detail };
    default: return { kind: 'retry', effect, code: 'vendor-unavailable', detail };
  }
}

/**
 * What status codes mean by RFC 9110 and 6585, for APIs that do not say otherwise: 2xx done; 401 and 403 our credential
 * (or, where others pass under it, this delivery: the dispatcher tells);
 * 429 throttled; 408, 409 and 5xx may have had an effect and are retried; 423 and 425 are retried; every other 4xx is refused for
 * good. A status that is none of these is given up, its effect unknown.
 */
export function classifyStatus(response: HttpResponse, detail = `HTTP ${response.status}`): Verdict {
  const { status } = response;
  if (status >= 200 && status < 300) return { kind: 'ok', effect: 'done' };
  const retryAfter = retryAfterMs(response.headers);
  if (status === 401 || status === 403) return { kind: 'auth-broken', effect: 'none', code: 'credential-rejected', retryAfterMs: retryAfter, detail };
  if (status === 429) return { kind: 'throttled', effect: 'none', code: 'vendor-throttled', retryAfterMs: retryAfter, detail };
  if (status === 408 || status === 409 || (status >= 500 && status < 600)) return { kind: 'retry', effect: 'maybe', code: 'vendor-unavailable', retryAfterMs: retryAfter, detail };
  if (status === 423 || status === 425) return { kind: 'retry', effect: 'none', code: 'vendor-unavailable', retryAfterMs: retryAfter, detail };
  return { kind: 'permanent', effect: status >= 400 && status < 500 ? 'none' : 'maybe', code: 'delivery-rejected', detail };
}
