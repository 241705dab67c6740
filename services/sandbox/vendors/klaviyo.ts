import { timingSafeEqual } from 'node:crypto';
import { bodyOf } from './http.ts';
import { createProfiles, identifiersOf, type Profiles } from './klaviyo-profiles.ts';
import type { Arrival, Reply, Vendor, VendorRequest, VendorState } from './types.ts';
import { digest, isObject, own, text } from './values.ts';

/**
 * Klaviyo as its OpenAPI description has it (klaviyo/openapi, openapi/stable/categories/{profiles,events}.json,
 * revision 2026-07-15, commit f0a30ba41254904dc410d84ca497df68f8872276):
 * - POST /api/profile-import: "create or update a profile. Returns 201 if a new profile was created, 200 if an
 *   existing profile was updated … setting a field to `null` will clear out the field, whereas not including a
 *   field in your request will leave it unchanged." Max 100 KB. A natural upsert: no key.
 * - POST /api/events: "If the unique_id is repeated for the same profile and metric, only the first processed
 *   event will be recorded. If this is not present, this will use the time to the second." Answers 202.
 * - POST /api/profile-subscription-bulk-create-jobs (up to 1000 profiles) and -delete-jobs (up to 100): set the
 *   consent of a channel; setting what is set changes nothing. 202. `consented_at` without `historical_import`
 *   "will raise an error".
 * - POST /api/data-privacy-deletion-jobs (data_privacy.json): one of e-mail, phone number or id; "all profiles that
 *   match the provided identifier will be deleted". 202.
 * - GET /api/profiles with filter=equals(email|phone_number|external_id,"…"); additional-fields[profile]=subscriptions.
 * - header `Authorization: Klaviyo-API-Key <key>` and a required `revision` header (YYYY-MM-DD[.suffix]).
 */
const contentType = 'application/vnd.api+json';
const importBytes = 100 * 1024;
const revisionPattern = /^\d{4}-\d{2}-\d{2}(\.[a-z0-9-]+)?$/;

interface Problem { readonly status: number; readonly code: string; readonly detail: string; readonly pointer?: string }

type Operation = (request: VendorRequest, state: VendorState, profiles: Profiles) => Problem | { readonly status: number; readonly body: unknown; readonly arrivals: readonly Arrival[]; readonly puts?: Reply['puts'] };

const invalid = (detail: string, pointer: string): Problem => ({ status: 400, code: 'invalid', detail, pointer });

function resource(request: VendorRequest, type: string): Record<string, unknown> | Problem {
  const data = own(request.json, 'data');
  if (!isObject(data)) return invalid('data is required', '/data');
  if (own(data, 'type') !== type) return invalid(`type must be ${type}`, '/data/type');
  return isObject(own(data, 'attributes')) ? data : invalid('attributes is required', '/data/attributes');
}

const isProblem = (value: object): value is Problem => Object.hasOwn(value, 'detail') && Object.hasOwn(value, 'status');

const importProfile: Operation = (request, _state, profiles) => {
  if (request.raw.length > importBytes) return { status: 413, code: 'payload_too_large', detail: 'The maximum allowed payload size is 100KB.' };
  const data = resource(request, 'profile');
  if (isProblem(data)) return data;
  const ids = identifiersOf(data);
  if (ids.length === 0) return invalid('one of id, external_id, email, phone_number is required', '/data/attributes');
  const profile = profiles.find(ids);
  if (profile === undefined && text(own(data, 'id')) !== undefined) return { status: 404, code: 'not_found', detail: 'A profile with this id does not exist.', pointer: '/data/id' };
  const done = profiles.upsert(profile, ids, own(data, 'attributes') as Record<string, unknown>);
  const arrival = { operation: 'profile-import', idempotencyKey: `profile/${done.profile.id}#${done.profile.v}`, subject: subjectOf(data), applied: done.changed, body: request.json };
  return { status: profile === undefined ? 201 : 200, body: { data: { type: 'profile', id: done.profile.id, attributes: done.profile.attributes } }, arrivals: [arrival], puts: done.puts };
};

const createEvent: Operation = (request, state, profiles) => {
  const data = resource(request, 'event');
  if (isProblem(data)) return data;
  const metric = text(own(data, 'attributes', 'metric', 'data', 'attributes', 'name'));
  if (metric === undefined || metric.length >= 128) return invalid('the metric needs a name of less than 128 characters', '/data/attributes/metric/data/attributes/name');
  if (!isObject(own(data, 'attributes', 'properties'))) return invalid('properties is required', '/data/attributes/properties');
  const profileData = own(data, 'attributes', 'profile', 'data');
  const ids = identifiersOf(profileData);
  if (ids.length === 0) return invalid('the profile needs at least one identifier', '/data/attributes/profile/data');
  const time = own(data, 'attributes', 'time');
  const at = time === undefined || time === null ? request.now : Date.parse(String(time));
  if (!Number.isFinite(at)) return invalid('time is not a date-time', '/data/attributes/time');
  const profile = profiles.find(ids);
  const unique = text(own(data, 'attributes', 'unique_id')) ?? `second/${Math.floor(at / 1000)}`;
  // The profile of a first event has no id yet; its identifiers stand for it and get the id it will have.
  const stateKey = `${request.destination}/e/${digest(profile?.id ?? profiles.idFor(ids), metric, unique)}`;
  const first = state.get(stateKey) === undefined;
  const arrival = { operation: 'events', idempotencyKey: unique, subject: subjectOf(profileData), applied: first, body: request.json };
  if (!first) return { status: 202, body: undefined, arrivals: [arrival] };
  const done = profiles.upsert(profile, ids, (own(profileData, 'attributes') ?? {}) as Record<string, unknown>);
  return { status: 202, body: undefined, arrivals: [arrival], puts: [[stateKey, '1'], ...done.puts] };
};

/** GET /api/profiles: the one filter that the sandbox knows, `equals(<identifier>,"<value>")`. */
const readProfiles: Operation = (request, _state, profiles) => {
  const match = /^equals\((email|phone_number|external_id),"([^"]+)"\)$/.exec(request.query?.get('filter') ?? '');
  if (match === null) return { status: 400, code: 'invalid', detail: 'the sandbox knows the filter equals(email|phone_number|external_id,"…")', pointer: 'filter' };
  const profile = profiles.find([[match[1]!, match[1] === 'email' ? match[2]!.toLowerCase() : match[2]!]]);
  const consent = (channel: string): unknown => ({ marketing: { consent: profile?.subscriptions[`${channel}/marketing`] ?? 'NEVER_SUBSCRIBED' } });
  const subscriptions = request.query?.get('additional-fields[profile]') === 'subscriptions' ? { subscriptions: { email: consent('email'), sms: consent('sms') } } : {};
  const arrival = { operation: 'profiles', idempotencyKey: null, subject: match[2]!, applied: false, body: null };
  return { status: 200, body: { data: profile === undefined ? [] : [{ type: 'profile', id: profile.id, attributes: { ...profile.attributes, ...subscriptions } }] }, arrivals: [arrival] };
};

/** A subscription job. Each profile is one arrival: its subject is what the job is about. */
function subscriptions(kind: 'create' | 'delete'): Operation {
  const operation = `profile-subscription-bulk-${kind}-jobs`;
  const most = kind === 'create' ? 1000 : 100;
  const consent = kind === 'create' ? 'SUBSCRIBED' : 'UNSUBSCRIBED';
  return (request, _state, profiles) => {
    const data = resource(request, `profile-subscription-bulk-${kind}-job`);
    if (isProblem(data)) return data;
    const list = own(data, 'attributes', 'profiles', 'data');
    const pointer = '/data/attributes/profiles/data';
    if (!Array.isArray(list) || list.length === 0) return invalid('profiles.data is required', pointer);
    if (list.length > most) return invalid(`Maximum number of profiles: ${most}`, pointer);
    const arrivals: Arrival[] = [];
    const puts: (readonly [string, string])[] = [];
    const listId = text(own(data, 'relationships', 'list', 'data', 'id')) ?? '';
    const historical = own(data, 'attributes', 'historical_import') === true;
    for (const [i, entry] of list.entries()) {
      const channels = channelsOf(entry, consent, historical);
      if (typeof channels === 'string') return invalid(channels, `${pointer}/${i}`);
      const ids = identifiersOf(entry).filter(([type]) => type !== 'external_id');
      if (ids.length === 0) return invalid('email or phone_number is required', `${pointer}/${i}`);
      const done = profiles.subscribe(ids, channels, listId, consent);
      arrivals.push({ operation, idempotencyKey: `profile/${done.profile.id}#${done.profile.v}`, subject: subjectOf(entry), applied: done.changed, body: list.length === 1 ? request.json : entry });
      puts.push(...done.puts);
    }
    return { status: 202, body: undefined, arrivals, puts };
  };
}

/** Every profile that matches is deleted; a repetition finds none. 202. */
const deleteProfile: Operation = (request, _state, profiles) => {
  const data = resource(request, 'data-privacy-deletion-job');
  if (isProblem(data)) return data;
  const entry = own(data, 'attributes', 'profile', 'data');
  const ids = identifiersOf(entry).filter(([type]) => type === 'id' || type === 'email' || type === 'phone_number');
  if (ids.length !== 1) return invalid('exactly one of id, email, phone_number is required', '/data/attributes/profile/data');
  const done = profiles.erase(ids[0]!);
  const key = done === undefined ? null : `profile/${done.profile.id}#deleted-${done.profile.v}`;
  return { status: 202, body: undefined, arrivals: [{ operation: 'data-privacy-deletion-jobs', idempotencyKey: key, subject: subjectOf(entry), applied: done !== undefined, body: request.json }], puts: done?.puts ?? [] };
};

/** Channel and message types of an entry, e.g. email/marketing; text = what is wrong. */
function channelsOf(entry: unknown, consent: string, historical: boolean): string[] | string {
  const found: string[] = [];
  const channels = own(entry, 'attributes', 'subscriptions');
  if (!isObject(channels)) return 'subscriptions is required';
  for (const [channel, types] of Object.entries(channels)) {
    if (!['email', 'sms', 'whatsapp', 'push'].includes(channel)) return `${channel} is not a channel`;
    if (!isObject(types)) continue;
    for (const [type, parameters] of Object.entries(types)) {
      if (!isObject(parameters)) continue;
      if (own(parameters, 'consent') !== consent) return `consent of ${channel}.${type} must be ${consent}`;
      const consentedAt = own(parameters, 'consented_at') ?? null;
      if (consentedAt !== null && !historical) return 'consented_at needs historical_import';
      if (consentedAt === null && historical) return 'historical_import needs consented_at';
      found.push(`${channel}/${type}`);
    }
  }
  return found.length === 0 ? 'subscriptions names no channel' : found;
}

function subjectOf(resourceObject: unknown): string | null {
  const attributes = own(resourceObject, 'attributes');
  return text(own(attributes, 'email')) ?? text(own(attributes, 'external_id')) ?? text(own(attributes, 'phone_number')) ?? text(own(resourceObject, 'id')) ?? text(own(attributes, 'anonymous_id')) ?? null;
}

const operations: ReadonlyMap<string, Operation> = new Map([
  ['profiles', readProfiles],
  ['profile-import', importProfile],
  ['events', createEvent],
  ['profile-subscription-bulk-create-jobs', subscriptions('create')],
  ['profile-subscription-bulk-delete-jobs', subscriptions('delete')],
  ['data-privacy-deletion-jobs', deleteProfile],
]);

const operationOf = (path: string): string => path.slice('api/'.length).replace(/\/$/, '');

/** True for the paths of Klaviyo that the sandbox knows, below a destination's base URL. */
export function isKlaviyo(path: string): boolean {
  return path.startsWith('api/') && operations.has(operationOf(path));
}

function errors(status: number, code: string, detail: string, pointer?: string): unknown {
  return { errors: [{ id: digest(status, code, detail), status, code, title: code.replaceAll('_', ' '), detail, source: pointer === undefined ? {} : { pointer } }] };
}

function doorProblem(request: VendorRequest, key: string | undefined): Problem | undefined {
  const given = /^Klaviyo-API-Key (\S+)$/.exec(request.headers['authorization'] ?? '')?.[1];
  const a = Buffer.from(given ?? '');
  const b = Buffer.from(key ?? given ?? '');
  if (given === undefined || a.length !== b.length || !timingSafeEqual(a, b)) return { status: 401, code: 'not_authenticated', detail: 'Authentication credentials were not provided or are wrong.' };
  const method = operationOf(request.path) === 'profiles' ? 'GET' : 'POST';
  if (request.method !== method) return { status: 405, code: 'method_not_allowed', detail: `Method ${request.method} not allowed.` };
  if (!revisionPattern.test(request.headers['revision'] ?? '')) return { status: 400, code: 'invalid', detail: 'The revision header is required: YYYY-MM-DD[.suffix].', pointer: 'revision' };
  if (method === 'GET') return undefined;
  const type = (request.headers['content-type'] ?? '').split(';')[0]!.trim().toLowerCase();
  if (type !== contentType && type !== 'application/json') return { status: 415, code: 'unsupported_media_type', detail: `expected ${contentType}` };
  return request.json === undefined ? { status: 400, code: 'parse_error', detail: 'The body is not JSON.' } : undefined;
}

export function createKlaviyo(options: { key?: string }): Vendor {
  const look: Vendor['look'] = (request) => {
    const data = own(request.json, 'data');
    const profile = own(data, 'attributes', 'profile', 'data') ?? own(data, 'attributes', 'profiles', 'data', '0') ?? data;
    return { operation: operationOf(request.path), subject: subjectOf(profile) };
  };
  return {
    look,
    handle(request, state) {
      const profiles = createProfiles(request.destination, state);
      const done = doorProblem(request, options.key) ?? operations.get(operationOf(request.path))!(request, state, profiles);
      if (!isProblem(done)) return { contentType, puts: [], ...done };
      const arrival = { ...look(request), idempotencyKey: null, applied: false, body: bodyOf(request) };
      return { status: done.status, contentType, body: errors(done.status, done.code, done.detail, done.pointer), arrivals: [arrival], puts: [] };
    },
    refusal: (status, code, detail) => ({ contentType, body: errors(status, code, detail) }),
  };
}
