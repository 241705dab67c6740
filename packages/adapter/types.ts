/**
 * What a tool is to Weir. An adapter describes itself and holds pure functions; the framework owns sockets,
 * retries, limits, ledger, metrics and secrets. One tool = one folder under adapters/ and one line in
 * adapters/registry.ts.
 */
import type { ErrorCode } from '@weir/errors';
import type { JsonLimits } from './json.ts';

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** One option of an adapter's config; the workspace YAML is checked against it, tables in READMEs are generated from it. */
export interface ConfigField {
  readonly type: 'string' | 'number' | 'boolean' | 'duration' | 'url' | 'string[]' | 'object' | 'object[]';
  readonly doc: string;
  readonly required?: boolean;
  readonly default?: Json;
  /** Secret values are given as `{ secret: NAME }`, resolved by the vault and never printed. */
  readonly secret?: boolean;
  /** Of a secret: it signs what is sent, and goes into no header itself, so it may hold any text. Every other secret of a destination or poller must be able to stand in a header. */
  readonly signs?: boolean;
  /** Scopes that the vendor must have given the credential; more than these is more than the adapter needs. */
  readonly scopes?: readonly string[];
  /** The option, a list, in which the workspace names them instead. */
  readonly scopesIn?: string;
  readonly enum?: readonly string[];
  readonly pattern?: string;
}
export type ConfigSchema = Readonly<Record<string, ConfigField>>;

/** Resolved config as an adapter function gets it: defaults filled, secrets revealed as strings. Never log it. */
export type AdapterConfig = Readonly<Record<string, any>>;

// ------------------------------------------------------------------------------------------------- source

export interface SourceManifest {
  readonly kind: 'webhook' | 'poll';
  readonly config: ConfigSchema;
  /** Where the sender's identity of an *event* (not of the object) is, and whether the sender promises it unique. */
  readonly identity: { readonly fields: readonly string[]; readonly unique: boolean; readonly cite: string };
  /** How long the sender retries a webhook; the dedupe window is at least this. */
  readonly retryHorizonMs: number;
  readonly limits: { readonly bodyBytes: number; readonly items: number; readonly depth: number };
  /** Default mapping, relative to the adapter folder, e.g. 'mappings/segment.yaml'. Absent: the workspace must give one. */
  readonly mapping?: string;
  /** The key that senders give can be read from a web page or an app, so anybody may send as any person. */
  readonly publicKey?: true;
  /** How the sender signs, with the document it is from. */
  readonly signing?: string;
}

/** A request as received: header names lower case, body after content-decoding, byte for byte. */
export interface InboundRequest {
  readonly method: string;
  /** Path and query as sent. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
}

/** `detail` is for the log, never for the answer. */
export type Verification = { readonly ok: true } | { readonly ok: false; readonly detail: string };

/** One item of a body: its exact bytes and what it parses to. */
export interface Item {
  readonly bytes: Buffer;
  readonly value: Json;
}

export interface Split {
  readonly items: readonly Item[];
  /** What surrounds the items in the body and belongs to each of them (Segment's batch-level context); kept as a header, at most 8 KiB of JSON. */
  readonly envelope?: JsonObject;
}

export interface ItemIdentity {
  /**
   * The sender's identity of this event, as parts; joined with NUL and hashed with the source name into the event id.
   * When `unique` is false the framework adds the SHA-256 of the item's bytes.
   */
  readonly parts: readonly string[];
  readonly unique: boolean;
  /** The sender's id of the object the event is about: key of the raw topic, so order per object holds. Default: the event id. */
  readonly objectKey?: string;
}

export interface WebhookSource {
  readonly kind: 'webhook';
  /** Pure: decides on the raw bytes only. `now` in ms. Must not throw. Timing-safe comparison. */
  verify(request: InboundRequest, config: AdapterConfig, now: number): Verification;
  /** Split the verified body into items with `oneObject`, `sliceArray` and friends of @weir/adapter. `limits`: what the source sets; default those of the manifest. Throws WeirError body-malformed, body-too-deep, too-many-items. */
  split(request: InboundRequest, config: AdapterConfig, limits?: JsonLimits): Split;
  identify(item: Item, config: AdapterConfig, envelope: JsonObject | undefined): ItemIdentity;
  /** For `weir send` and tests: a signed request for this body, as the vendor would send it. */
  sign(body: Buffer, config: AdapterConfig, now: number): { readonly path?: string; readonly headers: Readonly<Record<string, string>> };
  /**
   * Secrets for a local run, by config field, where a random 32-byte base64url string will not do. `value` is what
   * `verify` needs; `signingValue` (a private key) is what `sign` gets in its place.
   */
  localSecrets?(): Readonly<Record<string, { readonly value: string; readonly signingValue?: string }>>;
  /** For `weir send`: a believable body for this person. */
  sample(person: SamplePerson, now: number): Json;
}

export interface SamplePerson {
  readonly email: string;
  readonly userId: string;
  readonly phone?: string;
  readonly firstName?: string;
  readonly lastName?: string;
  readonly country?: string;
  readonly [other: string]: Json | undefined;
}

export interface PollPage {
  readonly items: readonly Item[];
  /** Cursor to save after the page's acks; opaque JSON. */
  readonly cursor: Json;
  /** False: nothing more now, sleep the interval. */
  readonly more: boolean;
}

export interface PollSource {
  readonly kind: 'poll';
  request(cursor: Json, config: AdapterConfig, now: number): HttpRequest;
  /** `now` is of before the call. `limits`: as of `WebhookSource.split`. */
  page(response: HttpResponse, cursor: Json, config: AdapterConfig, now: number, limits?: JsonLimits): PollPage;
  identify(item: Item, config: AdapterConfig): ItemIdentity;
  /** What to do with a response that is not a page. */
  classify(response: HttpResponse | HttpFailure): Verdict;
  /**
   * The settings, without secrets, that a cursor belongs to: under others the list is read from its beginning, because a
   * position in one list skips items of another. Absent: a cursor is kept whatever the settings.
   */
  cursorKey?(config: AdapterConfig): string;
  interval(config: AdapterConfig): { readonly everyMs: number; readonly maxRequestsPerMinute: number };
}

// ------------------------------------------------------------------------------------------------- destination

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Absolute URL. */
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
}
export interface HttpResponse {
  readonly status: number;
  /** Names lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Buffer;
}
/**
 * No response. `sent` false = the request provably never left (connect refused, DNS, lease); true = bytes may have been sent.
 * `unsendable`: the request itself is none that may be sent (a header with a line break), wherever it would go.
 */
export interface HttpFailure {
  readonly failure: 'connect' | 'timeout' | 'reset' | 'forbidden-address' | 'redirect' | 'too-large' | 'tls' | 'unsendable';
  readonly sent: boolean;
  readonly detail: string;
}

/** What happened at the vendor, as far as is known. */
export type Effect = 'none' | 'maybe' | 'done';

export type Verdict =
  | { readonly kind: 'ok'; readonly effect: 'done'; readonly detail?: string }
  | { readonly kind: 'retry' | 'throttled' | 'auth-broken'; readonly effect: 'none' | 'maybe'; readonly code: ErrorCode; readonly retryAfterMs?: number; readonly detail?: string }
  /** `vendorSide`: for a reason of the vendor's (a plan that ended, an API that is gone), not of this delivery: a second vendor may take it. */
  | { readonly kind: 'permanent'; readonly effect: Effect; readonly code: ErrorCode; readonly detail?: string; readonly vendorSide?: boolean };

/** Where a vendor states its limit in an answer. Header names lower case. */
export interface RateHeaders {
  readonly limit?: string;
  readonly remaining?: string;
  readonly reset?: string;
  /** What the reset counts; `auto` tells them apart by size. */
  readonly resetIn?: 'seconds' | 'ms' | 'epoch-seconds' | 'epoch-ms' | 'auto';
  /** Window of `limit`, where it is no part of the header. */
  readonly windowMs?: number;
}

export interface OperationManifest {
  /** use = needs consent; restrict = unsubscribe, suppress, delete, verify: never dropped, passes first. */
  readonly kind: 'use' | 'restrict';
  /** Canonical record names it takes, e.g. 'weir.canonical.Profile'. */
  readonly accepts: readonly string[];
  readonly doc: string;
  /**
   * Of `restrict`: by what the request names the person to the vendor. Where a person has one of these that a change of
   * consent which closes does not carry, the change goes out once more under it where Weir has its value, and else it is
   * recorded that the vendor was not told (`identifier-unknown`). Absent: not known.
   */
  readonly identifiers?: readonly ('userId' | 'email' | 'phone')[];
  /** The request carries one of `identifiers`, the first that the record has: an erasure tells the others by a record of their own. */
  readonly takesOne?: boolean;
  readonly idempotency: {
    readonly scheme: 'header' | 'body-field' | 'natural-upsert' | 'none';
    /** Header name or JSON pointer of the body field. */
    readonly name?: string;
    /** How long the vendor remembers a key; absent = for ever (upsert) or unknown (see pastWindow). */
    readonly windowMs?: number;
    /** Past the window, when it is unknown whether a call took effect. Default hold. */
    readonly pastWindow: 'verify' | 'hold' | 'resend';
    /** The vendor's own words and where they stand. */
    readonly cite: string;
  };
  readonly limit?: {
    readonly burst?: { readonly count: number; readonly perMs: number };
    readonly steady?: { readonly count: number; readonly perMs: number };
    /** Operations of the account that the vendor counts together have the same name here; default: the operation's own. */
    readonly bucket?: string;
    /** Where its answers state the limit, beside the standard fields, which are always read. */
    readonly headers?: RateHeaders;
    readonly cite: string;
  };
  /** Deadline of one call; default 10_000. */
  readonly timeoutMs?: number;
  /** Several deliveries of different subjects in one call; the adapter's `batch` builds and reads it. Absent: one call each. */
  readonly batch?: { readonly maxItems: number; readonly maxBytes: number; readonly cite: string };
  /** How the vendor can be asked whether a delivery took effect; the adapter's `verify` builds and reads the request. Absent: it cannot. */
  readonly verify?: ReadBackManifest;
}

/**
 * A read-back of one delivery. It is of kind restrict: it changes nothing, so it needs no consent, and it is drawn
 * from a limit of its own, where the vendor states one, or from the operation's.
 */
export interface ReadBackManifest {
  /** How long after the last call its effect shows surely, ms: before that a `not-applied` is not believed. Default 5_000. */
  readonly settleMs?: number;
  readonly limit?: OperationManifest['limit'];
  readonly timeoutMs?: number;
  /** What the answer is worth, in the vendor's words where there are any. */
  readonly cite: string;
}

/** What a read-back says; or the trouble in asking, which is tried again as a delivery would be. */
export type ReadBack =
  | { readonly kind: 'applied' | 'not-applied' | 'unknown'; readonly detail?: string }
  | Extract<Verdict, { readonly kind: 'retry' | 'throttled' | 'auth-broken' }>;

export interface DestinationManifest {
  readonly config: ConfigSchema;
  readonly operations: Readonly<Record<string, OperationManifest>>;
  /** How long to keep retrying; default 72 h. */
  readonly retryHorizonMs?: number;
}

export type IdentifierType = 'userId' | 'email' | 'phone' | 'external' | 'anonymousId';
export interface Identifier {
  readonly type: IdentifierType;
  readonly value: string;
}

/** What an adapter is asked to deliver. `record` is the decoded canonical record; `extras` is already gone. */
export interface Delivery {
  readonly destination: string;
  readonly operation: string;
  /** Full record name, e.g. 'weir.canonical.Event'. */
  readonly recordType: string;
  readonly record: JsonObject;
  /** Strongest first. */
  readonly identifiers: readonly Identifier[];
  readonly eventId: string;
  readonly outputId: string;
  /** ms since the epoch. */
  readonly acceptedAt: number;
}

export interface BatchItem {
  readonly delivery: Delivery;
  readonly key: string;
  readonly text: string;
}

export interface Destination {
  /** Pure. Throws WeirError delivery-unbuildable. `key` is the idempotency key, byte-identical on every try. `now` is for signatures only. */
  request(delivery: Delivery, key: string, config: AdapterConfig, now: number): HttpRequest;
  /** Pure. Must give a verdict for anything. */
  classify(response: HttpResponse | HttpFailure, delivery: Delivery, config: AdapterConfig): Verdict;
  /**
   * For operations whose manifest has `batch`. All pure. The framework keeps the order of each subject (a batch holds
   * one delivery of a subject), the count and the bytes of the items under the manifest's bounds, and acts on each verdict.
   */
  readonly batch?: {
    /** What stands for one delivery in the body. Throws WeirError delivery-unbuildable: that delivery ends, the others go. */
    item(delivery: Delivery, key: string, config: AdapterConfig): string;
    /** @param items of `item`, in order; all of one operation, which is that of the first */
    request(items: readonly BatchItem[], config: AdapterConfig, now: number): HttpRequest;
    /** One verdict per item in their order, or one for all. An item that the answer does not tell of gets `retry`, effect maybe. */
    classify(response: HttpResponse | HttpFailure, items: readonly BatchItem[], config: AdapterConfig): Verdict | readonly Verdict[];
  };
  /** For operations whose manifest has `verify`. Both pure; `request` must be without effect at the vendor and throws WeirError delivery-unbuildable. */
  readonly verify?: {
    request(delivery: Delivery, key: string, config: AdapterConfig, now: number): HttpRequest;
    classify(response: HttpResponse | HttpFailure, delivery: Delivery, key: string, config: AdapterConfig): ReadBack;
  };
  /**
   * Operations known only from the config (the `http` destination); replaces manifest.operations when present.
   * Throws WeirError workspace-invalid with the path of the bad option.
   */
  operations?(config: AdapterConfig): Readonly<Record<string, OperationManifest>>;
}

export interface Manifest {
  /** Folder name. */
  readonly name: string;
  readonly title: string;
  /** The vendor's documentation that the adapter was written from. */
  readonly docs: string;
  readonly source?: SourceManifest;
  readonly destination?: DestinationManifest;
}

export interface Adapter {
  readonly manifest: Manifest;
  readonly source?: WebhookSource | PollSource;
  readonly destination?: Destination;
}
