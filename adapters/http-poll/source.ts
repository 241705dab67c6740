import { classifyFailure, classifyStatus, isHeaderSafe, slicePath, valueAt, type AdapterConfig, type HttpFailure, type HttpResponse, type Item, type Json, type JsonLimits, type JsonObject, type PollPage, type PollSource, type Verdict } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import { manifest } from './manifest.ts';

const ownLimits = manifest.source!.limits;
/** Largest time of a Date, ms. */
const maxTime = 8.64e15;
const maxLink = 2000;

/** Beside the URL, the settings by which a position in the list was come by. */
const asking = ['items', 'cursor', 'cursorField', 'cursorParam', 'since', 'sinceParam', 'sinceFormat', 'start'];

/** Where a run stands, and from which time the run asks. */
interface Cursor {
  readonly token?: string;
  /** Path and query of the next page. The origin is the config's: a cursor cannot take the credential elsewhere. */
  readonly link?: string;
  readonly page?: number;
  /** ms: what this run asks for. */
  readonly since?: number;
  /** ms: the latest change seen in this run; the next run's `since`. */
  readonly high?: number;
}
type Position = Pick<Cursor, 'token' | 'link' | 'page'>;

/** What was saved, part by part: a part that is not what this version writes counts as not there. */
function cursorOf(cursor: Json): Cursor {
  const saved: JsonObject = cursor !== null && typeof cursor === 'object' && !Array.isArray(cursor) ? cursor : {};
  const { token, link, page, since, high } = saved;
  const time = (value: Json | undefined): number | undefined => (typeof value === 'number' && Math.abs(value) <= maxTime ? value : undefined);
  return {
    token: typeof token === 'string' ? token : undefined,
    link: typeof link === 'string' && link.startsWith('/') ? link : undefined,
    page: typeof page === 'number' && Number.isSafeInteger(page) && page > 0 ? page : undefined,
    since: time(since), high: time(high),
  };
}

function firstUrl(config: AdapterConfig): URL {
  return new URL(String(config['url']).replace(/\/$/, '') + String(config['path'] ?? ''));
}

function textAt(value: Json | undefined, path: unknown): string | undefined {
  const found = valueAt(value, String(path));
  return (typeof found === 'string' && found !== '') || typeof found === 'number' ? String(found) : undefined;
}

/** Path and query of a next page, on the origin of the first page only: a page must not lead elsewhere. */
function withinOrigin(link: string, config: AdapterConfig): string {
  const first = firstUrl(config);
  const url = link.length > maxLink ? null : URL.parse(link, first.href);
  if (url?.origin !== first.origin) throw new WeirError('body-malformed', `the next link leads to another origin, or is longer than ${maxLink} characters`);
  return url.pathname + url.search;
}

/** A target and its parameters, up to the next comma outside quotes. Whatever the text, no character is looked at again for another match. */
const linkValue = /<([^>]*)(?:>((?:[^",]+|"(?:[^"\\]|\\.)*"?)*)|$)/g;
const linkParameter = /;\s*([^\s;=",]+)\s*=\s*("(?:[^"\\]|\\.)*"?|[^;"]*)/g;

/** The next link of a Link header (RFC 8288). The client bounds how long headers are. */
function nextLink(response: HttpResponse, config: AdapterConfig): string | undefined {
  for (const [, target, parameters = ''] of (response.headers['link'] ?? '').matchAll(linkValue)) {
    // Of several the first counts.
    const rel = [...parameters.matchAll(linkParameter)].find(([, name]) => name!.toLowerCase() === 'rel')?.[2];
    const words = rel?.trim().replace(/^["']|["']$/g, '').toLowerCase().split(/\s+/) ?? [];
    if (words.includes('next')) return withinOrigin(target!, config);
  }
  return undefined;
}

/** Position of the page after this one; undefined when this is the last. */
function nextOf(response: HttpResponse, items: readonly Item[], page: Json, at: Cursor, config: AdapterConfig): Position | undefined {
  switch (config['cursor']) {
    case 'link': {
      const link = nextLink(response, config);
      return link === undefined || link === at.link ? undefined : { link };
    }
    case 'url': {
      const text = textAt(page, config['cursorField']);
      const link = text === undefined ? undefined : withinOrigin(text, config);
      return link === undefined || link === at.link ? undefined : { link };
    }
    case 'page': return items.length === 0 ? undefined : { page: (at.page ?? 1) + 1 };
    case 'none': return undefined;
    default: {
      const token = textAt(page, config['cursorField']);
      return token === undefined || token === at.token ? undefined : { token };
    }
  }
}

/** ISO 8601 with a time of day and no zone: Date.parse would take it for the time of this machine. */
const zoneless = /^[-+\d]+[T ][\d:.]+$/;

function timeOf(item: Item, config: AdapterConfig): number | undefined {
  const text = textAt(item.value, config['since']);
  if (text === undefined) return undefined;
  const ms = config['sinceFormat'] === 'iso' ? Date.parse(zoneless.test(text) ? `${text}Z` : text) : Number(text) * (config['sinceFormat'] === 's' ? 1000 : 1);
  return Math.abs(ms) <= maxTime ? ms : undefined;
}

function page(response: HttpResponse, cursor: Json, config: AdapterConfig, now: number, limits: JsonLimits = ownLimits): PollPage {
  const path = String(config['items']);
  const { items, value } = slicePath(response.body, path === '' ? [] : path.split('.'), limits);
  // Of a time ahead of the clock only this much is known: what is there was there when the page was asked for.
  const notAhead = (time: number | undefined): number | undefined => (time === undefined ? undefined : Math.min(time, now));
  const saved = cursorOf(cursor);
  const at: Cursor = { ...saved, since: notAhead(saved.since) };
  let high = notAhead(saved.high);
  if (config['since'] !== undefined) {
    for (const item of items) {
      const time = notAhead(timeOf(item, config));
      if (time !== undefined && (high === undefined || time > high)) high = time;
    }
  }
  const next = nextOf(response, items, value, at, config);
  const make = (fields: Cursor): Json => Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== undefined)) as JsonObject;
  if (next !== undefined) return { items, cursor: make({ since: at.since, high, ...next }), more: items.length > 0 };
  if (config['since'] !== undefined) return { items, cursor: make({ since: high ?? at.since }), more: false };
  // Nothing after this page, yet: what comes later is appended to the last page that had company, so that one is read again.
  if (at.page !== undefined && items.length === 0) return { items, cursor: make({ page: Math.max(1, at.page - 1) }), more: false };
  return { items, cursor, more: false };
}

function formatTime(ms: number, format: unknown): string {
  return format === 's' ? String(Math.floor(ms / 1000)) : format === 'ms' ? String(ms) : new Date(ms).toISOString();
}

/** A GET changes nothing at the sender, so no failure of it can have had an effect. A 2xx that is no page is worth another try; what is refused for good is told as that. */
function classify(response: HttpResponse | HttpFailure): Verdict {
  const verdict = 'failure' in response ? classifyFailure(response) : classifyStatus(response);
  switch (verdict.kind) {
    case 'ok': return { kind: 'retry', effect: 'none', code: 'vendor-unavailable', retryAfterMs: 60_000, detail: verdict.detail };
    case 'permanent': case 'retry': return { ...verdict, effect: 'none' };
    default: return { ...verdict, effect: 'none', retryAfterMs: verdict.retryAfterMs ?? 60_000 };
  }
}

export const source: PollSource = {
  kind: 'poll',
  request(cursor, config, now) {
    const at = cursorOf(cursor);
    const first = firstUrl(config);
    const url = at.link === undefined ? first : new URL(first.origin + at.link);
    if (config['cursor'] === 'page') url.searchParams.set(String(config['cursorParam']), String(at.page ?? 1));
    else if (at.token !== undefined) url.searchParams.set(String(config['cursorParam']), at.token);
    if (config['since'] !== undefined && at.link === undefined) {
      // A time ahead of the clock would skip everything until then.
      const since = at.since === undefined ? Date.parse(String(config['start'])) : Math.min(at.since, now) - Number(config['overlap']) * 1000;
      if (!Number.isNaN(since)) url.searchParams.set(String(config['sinceParam']), formatTime(Math.max(0, since), config['sinceFormat']));
    }
    const headers: Record<string, string> = { 'accept': 'application/json', 'user-agent': 'weir/0.1' };
    for (const line of String(config['headers'] ?? '').split('\n')) {
      const colon = line.indexOf(': ');
      if (colon > 0) headers[line.slice(0, colon)] = line.slice(colon + 2);
    }
    if (typeof config['auth'] === 'string') {
      const value = `${String(config['authPrefix'])}${config['auth']}`;
      if (!isHeaderSafe(value)) throw new WeirError('delivery-unbuildable', 'the credential holds a control character');
      headers[String(config['authHeader']).toLowerCase()] = value;
    }
    return { method: 'GET', url: url.href, headers };
  },
  page,
  identify(item, config) {
    const objectKey = textAt(item.value, config['id']);
    const version = config['version'] === undefined ? '' : (textAt(item.value, config['version']) ?? '');
    return { parts: [objectKey ?? '', version], unique: false, objectKey };
  },
  classify,
  cursorKey: (config) => JSON.stringify([firstUrl(config).href, ...asking.map((name) => config[name])]),
  interval: (config) => ({ everyMs: Math.max(1, Number(config['every'])) * 1000, maxRequestsPerMinute: Math.max(1, Number(config['requestsPerMinute'])) }),
};
