import { isHeaderSafe, retryAfterMs, slicePath, textOf, type AdapterConfig, type HttpFailure, type HttpResponse, type Item, type Json, type PollPage, type PollSource, type Verdict } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { manifest } from './manifest.ts';

const { items: maxItems, depth } = manifest.source!.limits;

interface Cursor {
  readonly token?: string;
  readonly url?: string;
  readonly page?: number;
}

const cursorOf = (cursor: Json): Cursor => (cursor !== null && typeof cursor === 'object' && !Array.isArray(cursor) ? (cursor as Cursor) : {});

function firstUrl(config: AdapterConfig): URL {
  return new URL(String(config['url']).replace(/\/$/, '') + String(config['path'] ?? ''));
}

/** The next link of a Link header (RFC 8288), on the same origin as the first page only: a page must not lead elsewhere. */
function nextLink(response: HttpResponse, config: AdapterConfig): string | undefined {
  for (const part of (response.headers['link'] ?? '').split(',').slice(0, 20)) {
    const match = /^\s*<([^>]{1,2000})>\s*;(.*)$/.exec(part);
    if (match === null || !/\brel="?next"?/.test(match[2]!)) continue;
    const first = firstUrl(config);
    const url = new URL(match[1]!, first);
    if (url.origin !== first.origin) throw new WeirError('body-malformed', 'the next link leads to another origin');
    return url.href;
  }
  return undefined;
}

function itemsOf(response: HttpResponse, config: AdapterConfig): { items: readonly Item[]; page: Json } {
  const path = String(config['items'] ?? '');
  const { items, value } = slicePath(response.body, path === '' ? [] : path.split('.'), { depth, items: maxItems });
  return { items, page: value };
}

function page(response: HttpResponse, cursor: Json, config: AdapterConfig): PollPage {
  const { items, page: object } = itemsOf(response, config);
  const at = cursorOf(cursor);
  switch (config['cursor']) {
    case 'link': {
      const url = nextLink(response, config);
      return url === undefined ? { items, cursor, more: false } : { items, cursor: { url }, more: true };
    }
    case 'page': {
      const next = (at.page ?? 1) + 1;
      // The last page is read again until it has company: objects are appended to it.
      return items.length === 0 ? { items, cursor, more: false } : { items, cursor: { page: next }, more: true };
    }
    case 'none':
      return { items, cursor: null, more: false };
    default: {
      const token = textOf(object, String(config['cursorField']));
      return token === undefined || token === at.token ? { items, cursor, more: false } : { items, cursor: { token }, more: items.length > 0 };
    }
  }
}

function classify(response: HttpResponse | HttpFailure): Verdict {
  if ('failure' in response) return { kind: 'retry', effect: 'none', code: 'vendor-unavailable', detail: response.failure };
  const detail = `HTTP ${response.status}`;
  if (response.status === 401 || response.status === 403) return { kind: 'auth-broken', effect: 'none', code: 'credential-rejected', retryAfterMs: 60_000, detail };
  if (response.status === 429) return { kind: 'throttled', effect: 'none', code: 'vendor-throttled', retryAfterMs: retryAfterMs(response.headers) ?? 60_000, detail };
  return { kind: 'retry', effect: 'none', code: 'vendor-unavailable', retryAfterMs: retryAfterMs(response.headers), detail };
}

export const source: PollSource = {
  kind: 'poll',
  request(cursor, config) {
    const at = cursorOf(cursor);
    const url = at.url === undefined ? firstUrl(config) : new URL(at.url);
    if (config['cursor'] === 'page') url.searchParams.set(String(config['cursorParam']), String(at.page ?? 1));
    else if (at.token !== undefined) url.searchParams.set(String(config['cursorParam']), at.token);
    const headers: Record<string, string> = { 'accept': 'application/json', 'user-agent': 'weir/0.1' };
    if (typeof config['auth'] === 'string') {
      const value = `${String(config['authPrefix'] ?? '')}${config['auth']}`;
      if (!isHeaderSafe(value)) throw new WeirError('delivery-unbuildable', 'the credential holds a control character');
      headers[String(config['authHeader']).toLowerCase()] = value;
    }
    return { method: 'GET', url: url.href, headers };
  },
  page,
  identify(item, config) {
    const objectKey = textOf(item.value, String(config['id']));
    const version = config['version'] === undefined ? '' : (textOf(item.value, String(config['version'])) ?? '');
    return { parts: [objectKey ?? '', version], unique: false, objectKey };
  },
  classify,
  interval: (config) => ({ everyMs: Math.max(1, Number(config['every'])) * 1000, maxRequestsPerMinute: Math.max(1, Number(config['requestsPerMinute'])) }),
};

