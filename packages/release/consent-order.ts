import { parseJson, type Json, type JsonObject } from '@weir/adapter';
import { findWeirError, WeirError } from '@weir/errors';
import { phoneNumber } from '@weir/mapping';
import { consentApi, eventId, hmacText, itemHash, outputId } from '@weir/pipeline';
import { asRouted, everyPurpose, type CompiledPolicy } from '@weir/policy';
import type { ExternalId } from './identifier.ts';

/**
 * Whom a change is of. The order as JSON is part of the id of its change (`consentIds`), so what came later is there only
 * where it was given: else a request of before, sent again under its key, would be another change, and a grant open anew.
 */
export interface ConsentOrderIdentifiers {
  readonly userId: string | null;
  readonly email: string | null;
  readonly phone: string | null;
  readonly anonymousId?: string;
  readonly externalIds?: readonly ExternalId[];
}

/** A change of consent as it was asked for, checked. */
export interface ConsentOrder {
  readonly identifiers: ConsentOrderIdentifiers;
  readonly purpose: string;
  readonly channel: string | null;
  readonly topic: string | null;
  readonly state: 'granted' | 'denied' | 'withdrawn' | 'unknown';
  readonly legalBasis: string | null;
  readonly jurisdiction: string | null;
  readonly noticeVersion: string | null;
  readonly proof: string | null;
  readonly reason: string | null;
  /** ms since the epoch. */
  readonly expiresAt: number | null;
  readonly occurredAt: number | null;
}

export const maxOrderBytes = 16 * 1024;
const maxDepth = 4;
const maxExternalIds = 16;
// As transforms.ts of packages/mapping has it: what a mapping makes of an address must be the same identifier.
const email = /^[^\s@"<>(),:;[\]\\]{1,64}@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+$/;
const phone = /^\+[1-9]\d{6,14}$/;
const region = /^[A-Z]{2}(?:-[A-Z0-9]{1,3})?$/;
const control = /[\u0000-\u001f\u007f]/;
const text = (maxLength: number, description: string) => ({ type: ['string', 'null'], maxLength, description });
const time = (description: string) => ({ type: ['string', 'null'], format: 'date-time', description: `${description} With Z or an offset.` });

/** JSON Schema of the body of `POST /v1/consent`: the fields there are, with their bounds. */
export const consentOrderSchema = {
  type: 'object', additionalProperties: false, required: ['identifiers', 'purpose', 'state'],
  properties: {
    identifiers: {
      type: 'object', additionalProperties: false, minProperties: 1, description: 'Whom it is of: at least one.',
      properties: {
        userId: text(254, 'User id.'), email: text(254, 'E-mail address.'), phone: text(254, 'Phone number with + and country code, in any form.'), anonymousId: text(254, 'Id of a browser or an app before anybody signed in.'),
        externalIds: { type: ['array', 'null'], maxItems: maxExternalIds, description: 'Ids of other systems.', items: { type: 'object', additionalProperties: false, required: ['type', 'value'], properties: { type: { type: 'string', maxLength: 64, description: 'System, without a colon.' }, value: { type: 'string', maxLength: 254, description: 'Id there, verbatim.' } } } },
      },
    },
    purpose: { type: 'string', maxLength: 128, description: 'A purpose of the workspace; `*` = every one, those of later releases included, for withdrawn and denied.' },
    channel: text(64, 'Channel, as the routes write it; absent = every one.'), topic: text(128, 'Topic, as the routes write it; absent = every one.'),
    state: { type: 'string', enum: ['granted', 'denied', 'withdrawn', 'unknown'], description: 'What the person said.' },
    legalBasis: { type: ['string', 'null'], enum: ['consent', 'contract', 'legitimate-interest', 'legal-obligation', null], description: 'Legal basis.' },
    jurisdiction: { ...text(254, 'ISO 3166 code, such as DE or US-CA.'), pattern: region.source }, noticeVersion: text(128, 'Version of the notice that was shown.'), proof: text(2000, 'Where the proof is.'), reason: text(200, 'Why, for people.'),
    expiresAt: time('Until when it counts.'), occurredAt: time('When the person said it; absent = now.'),
  },
};
const known = Object.keys(consentOrderSchema.properties);
const knownIdentifiers = Object.keys(consentOrderSchema.properties.identifiers.properties);
const states = new Set(consentOrderSchema.properties.state.enum);
const legalBases = new Set(consentOrderSchema.properties.legalBasis.enum.filter((basis) => basis !== null));

const bad = (message: string): WeirError => new WeirError('bad-request', message);

function tableOf(value: Json | undefined, what: string, keys: readonly string[]): JsonObject {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) throw bad(`${what}: expected an object with ${keys.join(', ')}`);
  const unknown = Object.keys(value).find((key) => !keys.includes(key));
  // The name of the field is the sender's text: only a plain one is repeated.
  if (unknown !== undefined) throw bad(`${what}: unknown field ${/^[A-Za-z0-9_.-]{1,40}$/.test(unknown) ? unknown : '(unprintable)'}, known are ${keys.join(', ')}`);
  return value;
}

function textIn(table: JsonObject, key: string, max: number): string | null {
  const value = table[key];
  if (value === undefined || value === null) return null;
  if (typeof value !== 'string' || value.trim() === '' || value.length > max || control.test(value)) throw bad(`${key}: expected a text of 1 to ${max} characters`);
  return value.trim();
}

function timeIn(table: JsonObject, key: string): number | null {
  const value = table[key];
  if (value === undefined || value === null) return null;
  const at = typeof value === 'string' && /^\d{4}-\d{2}-\d{2}T[\d:.]{5,18}(?:Z|[+-]\d{2}:\d{2})$/.test(value) ? Date.parse(value) : NaN;
  if (!Number.isFinite(at) || at < 0 || at > 7_258_118_400_000) throw bad(`${key}: expected a time such as 2026-01-31T12:00:00Z`);
  return at;
}

function matching(table: JsonObject, key: string, pattern: RegExp, expected: string, normal: (text: string) => string = (text) => text): string | null {
  const text = textIn(table, key, 254);
  if (text === null) return null;
  const value = normal(text);
  if (!pattern.test(value)) throw bad(`${key}: expected ${expected}`);
  return value;
}

/** Verbatim, as mappings keep them; each once. */
function externalIdsIn(table: JsonObject): readonly ExternalId[] {
  const value = table['externalIds'];
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > maxExternalIds) throw bad(`externalIds: expected a list of at most ${maxExternalIds} objects with type and value`);
  const found = new Map<string, ExternalId>();
  for (const item of value) {
    const one = tableOf(item, 'externalIds', ['type', 'value']);
    const [type, id] = [textIn(one, 'type', 64), textIn(one, 'value', 254)];
    if (type === null || id === null || type.includes(':')) throw bad('externalIds: expected objects with type, without a colon, and value');
    found.set(`${type}:${id}`, { type, value: one['value'] as string });
  }
  return [...found.values()];
}

/** What an order is checked against. */
type Policy = Pick<CompiledPolicy, 'purposes' | 'routes'>;

/** One that is almost written as in the routes would bind none of them: a withdrawal for `E-Mail` closes nothing of `email`. */
function writtenAsRouted(table: JsonObject, field: 'channel' | 'topic', max: number, policy: Policy): string | null {
  const text = textIn(table, field, max);
  if (text === null) return null;
  const meant = asRouted(policy, field, text);
  if (meant !== undefined && meant !== text) throw bad(`${field}: the routes of the workspace write ${meant}`);
  return text;
}

/**
 * The body of `POST /v1/consent`. Throws body-malformed for what is no JSON and bad-request for what is no order, with
 * the field and what it takes, never its value. The policy is that of the running release.
 */
export function parseOrder(body: Buffer, policy: Policy): ConsentOrder {
  let json: Json;
  try {
    json = parseJson(body, maxDepth);
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    throw new WeirError('body-malformed', 'expected a JSON object');
  }
  return checkOrder(json, policy);
}

/** The same for one that was parsed already. */
export function checkOrder(json: Json, policy: Policy): ConsentOrder {
  const table = tableOf(json, 'the body', known);
  const given = tableOf(table['identifiers'], 'identifiers', knownIdentifiers);
  const [anonymousId, externalIds] = [textIn(given, 'anonymousId', 254), externalIdsIn(given)];
  const identifiers: ConsentOrderIdentifiers = {
    userId: textIn(given, 'userId', 254),
    email: matching(given, 'email', email, 'an e-mail address', (text) => text.toLowerCase()),
    phone: matching(given, 'phone', phone, 'a phone number with + and country code, such as +4930901820', (text) => phoneNumber(text) ?? text),
    ...(anonymousId === null ? {} : { anonymousId }),
    ...(externalIds.length === 0 ? {} : { externalIds }),
  };
  if (Object.values(identifiers).every((value) => value === null)) throw bad(`identifiers: give at least one of ${knownIdentifiers.join(', ')}`);
  const purpose = textIn(table, 'purpose', 128);
  if (purpose === null) throw bad('purpose is missing');
  const ofAll = purpose === everyPurpose;
  if (!ofAll && !policy.purposes.has(purpose)) throw bad(`purpose: the workspace has ${[...policy.purposes.keys()].join(', ')}`);
  const state = textIn(table, 'state', 16);
  if (state === null || !states.has(state)) throw bad(`state: expected one of ${[...states].join(', ')}`);
  if (ofAll && state !== 'withdrawn' && state !== 'denied') throw bad(`purpose: ${everyPurpose} (every purpose) takes withdrawn or denied; a grant names its purpose`);
  const narrow = (['channel', 'topic'] as const).find((field) => ofAll && textIn(table, field, 128) !== null);
  if (narrow !== undefined) throw bad(`${narrow}: ${everyPurpose} (every purpose) is on every channel and topic`);
  const legalBasis = textIn(table, 'legalBasis', 64);
  if (legalBasis !== null && !legalBases.has(legalBasis)) throw bad(`legalBasis: expected one of ${[...legalBases].join(', ')}`);
  return {
    identifiers, purpose, state: state as ConsentOrder['state'], legalBasis,
    channel: writtenAsRouted(table, 'channel', 64, policy), topic: writtenAsRouted(table, 'topic', 128, policy), noticeVersion: textIn(table, 'noticeVersion', 128),
    jurisdiction: matching(table, 'jurisdiction', region, 'an ISO 3166 code such as DE or US-CA'),
    proof: textIn(table, 'proof', 2000), reason: textIn(table, 'reason', 200), expiresAt: timeIn(table, 'expiresAt'), occurredAt: timeIn(table, 'occurredAt'),
  };
}

/**
 * The event and output id of a change that came by the API. With the order in it: a key that is used again for another
 * change must not swallow it. The workspace key is not: what hides the order is that `key` cannot be guessed (docs/erasure.md).
 *
 * @param source of the change, as its record names it
 * @param key who asks, and the key of the request
 * @param after change that it is to undo once more; undefined = it is the first under its key
 */
export function consentIds(source: string, key: string, order: ConsentOrder, after?: string): { readonly id: string; readonly output: string } {
  // Unkeyed for ever, and written nowhere: a grant that is sent again under its key must be the change that it was, however long ago.
  const hash = itemHash(Buffer.from(JSON.stringify(order)));
  const id = eventId(consentApi, [source, key, hash, ...(after === undefined ? [] : [after])]);
  return { id, output: outputId(id, 'consent', '') };
}

/**
 * Hash of the order of a change that came by the API (`H.hash`), in the form of an `itemHash`. It stands unsealed on topics that
 * outlive an erasure, so it is keyed: a plain one would confirm a guessed address, and what the person said, to who has the topics.
 */
export function orderHash(workspaceKey: Buffer, order: ConsentOrder): string {
  return Buffer.from(hmacText(workspaceKey, `consent-order\u0000${JSON.stringify(order)}`), 'base64url').toString('hex', 0, 16);
}

/** The changes of an order: itself; of one for every purpose also that of each purpose of the workspace, by which destinations are told. */
export function changesOf(order: ConsentOrder, policy: Pick<CompiledPolicy, 'purposes'>): readonly [ConsentOrder, ...ConsentOrder[]] {
  return order.purpose === everyPurpose ? [order, ...Array.from(policy.purposes.keys(), (purpose) => ({ ...order, purpose }))] : [order];
}
