import type { Manifest, OperationManifest, RateHeaders, ReadBackManifest, VerdictSpec } from '@weir/adapter';

const hour = 3_600_000;
const guide = 'developers.klaviyo.com/en/docs/working_with_system_webhooks';
const spec = 'klaviyo/openapi, openapi/stable/categories, revision 2026-07-15';
/**
 * Every answer but a 429 states the steady window: RateLimit-Limit, RateLimit-Remaining ("the approximate number of
 * requests remaining within a window") and RateLimit-Reset ("number of seconds remaining before current window resets");
 * a 429 has Retry-After in seconds instead. Source: developers.klaviyo.com/en/docs/rate_limits_and_error_handling.
 */
const headers: RateHeaders = { limit: 'ratelimit-limit', remaining: 'ratelimit-remaining', reset: 'ratelimit-reset', resetIn: 'seconds', windowMs: 60_000 };
/** Limits are per account and endpoint: operations of one endpoint are counted together. */
const limit = (burst: number, steady: number, path: string): OperationManifest['limit'] => ({ burst: { count: burst, perMs: 1000 }, steady: { count: steady, perMs: 60_000 }, bucket: path, headers, cite: `${spec}, ${path}: "Rate limits: Burst: ${burst}/s, Steady: ${steady}/m"` });

/** Profiles are read by an identifier: GET /api/profiles. A change shows at once in what is documented; half a minute is ours. */
const readProfile: ReadBackManifest = { settleMs: 30_000, limit: limit(75, 750, 'GET /api/profiles'), cite: `${spec}, profiles.json, GET /api/profiles: filter "email: any, equals", "phone_number", "external_id"; additional-fields "subscriptions"` };

/** What Klaviyo's answers mean. Its description has 2XX, 4XX and 5XX with `errors[]` of `code` and `source`, and names no codes: the status decides. 429 carries Retry-After. */
export const verdicts: readonly VerdictSpec[] = [
  { status: '2xx', verdict: 'ok' },
  { status: '401', verdict: 'auth-broken', effect: 'none' },
  { status: '403', verdict: 'auth-broken', effect: 'none' },
  { status: '429', verdict: 'throttled', effect: 'none' },
  { status: '408', verdict: 'retry', effect: 'maybe' },
  { status: '409', verdict: 'retry', effect: 'maybe' },
  { status: '4xx', verdict: 'permanent', effect: 'none' },
  { status: '5xx', verdict: 'retry', effect: 'maybe' },
];

/** Dated version of the API that the requests are written for. */
export const revision = '2026-07-15';

export const manifest: Manifest = {
  name: 'klaviyo',
  title: 'Klaviyo',
  docs: 'https://github.com/klaviyo/openapi',
  source: {
    kind: 'webhook',
    config: {
      webhookSecret: { type: 'string', secret: true, required: true, doc: 'secret_key of the webhook, as it was given to Klaviyo.' },
    },
    identity: { fields: ['external_id', 'topic'], unique: true, cite: `${guide}: data[].external_id, "ID of the event"; a webhook of several topics may send one event under each` },
    // Klaviyo does not say for how long it tries again.
    retryHorizonMs: 72 * hour,
    // As many events as a request has room for; Klaviyo states no bound.
    limits: { bodyBytes: 5 * 1024 * 1024, items: 5000, depth: 24 },
    mapping: 'mappings/klaviyo.yaml',
    signing: `HMAC-SHA256 over raw body + Klaviyo-Timestamp, hex, in Klaviyo-Signature (${guide}). No tolerance is stated: the timestamp is signed, not checked against the clock.`,
  },
  destination: {
    config: {
      apiKey: { type: 'string', secret: true, required: true, scopes: ['profiles:write', 'events:write', 'lists:write', 'subscriptions:write', 'data-privacy:write', 'profiles:read', 'subscriptions:read'], doc: 'Private API key; the two scopes for reading are for reading back what may have been applied.' },
      baseUrl: { type: 'url', default: 'https://a.klaviyo.com', doc: 'Base URL of the API; sandbox://<name> is the local sandbox.' },
      listId: { type: 'string', doc: 'List that subscribers are added to. An unsubscribe is always global.' },
    },
    operations: {
      'profile-import': {
        kind: 'use', accepts: ['weir.canonical.Profile'], doc: 'Create or update a profile by its e-mail, phone or external id.',
        idempotency: { scheme: 'natural-upsert', pastWindow: 'resend', cite: `${spec}, profiles.json, /api/profile-import: "create or update a profile"; no key` },
        limit: limit(75, 750, '/api/profile-import'), verify: readProfile,
      },
      event: {
        kind: 'use', accepts: ['weir.canonical.Event', 'weir.canonical.Order'], doc: 'Track an event of a profile.',
        idempotency: { scheme: 'body-field', name: '/data/attributes/unique_id', pastWindow: 'hold', cite: `${spec}, events.json, /api/events: unique_id, "If the unique_id is repeated for the same profile and metric, only the first processed event will be recorded"; no end of that is stated` },
        limit: limit(350, 3500, '/api/events'),
      },
      subscribe: {
        kind: 'use', accepts: ['weir.canonical.ConsentChange'], doc: 'Subscribe a profile to e-mail or SMS marketing.',
        idempotency: { scheme: 'natural-upsert', pastWindow: 'resend', cite: `${spec}, profiles.json, /api/profile-subscription-bulk-create-jobs: sets the subscription, a repetition sets it again; where "double opt-in [is] enabled, profiles will receive a message requiring their confirmation", and a repetition before it may send another; it "will remove any UNSUBSCRIBE, SPAM_REPORT or USER_SUPPRESSED suppressions"` },
        limit: limit(75, 750, '/api/profile-subscription-bulk-create-jobs'), verify: readProfile,
      },
      unsubscribe: {
        kind: 'restrict', accepts: ['weir.canonical.ConsentChange'], identifiers: ['email', 'phone'], doc: 'Unsubscribe a profile from e-mail or SMS marketing.',
        idempotency: { scheme: 'natural-upsert', pastWindow: 'resend', cite: `${spec}, profiles.json, /api/profile-subscription-bulk-delete-jobs: sets the subscription, a repetition sets it again` },
        limit: limit(75, 750, '/api/profile-subscription-bulk-delete-jobs'), verify: readProfile,
      },
      'delete-profile': {
        kind: 'restrict', accepts: ['weir.canonical.Erasure'], identifiers: ['email', 'phone'], takesOne: true, doc: 'Delete every profile with the e-mail address, or else the phone number.',
        idempotency: { scheme: 'natural-upsert', pastWindow: 'resend', cite: 'klaviyo/openapi, data_privacy.json, /api/data-privacy-deletion-jobs: "All profiles that match the provided identifier will be deleted", so a repetition deletes nothing more; asynchronous' },
        limit: limit(3, 60, '/api/data-privacy-deletion-jobs'),
      },
    },
  },
};
