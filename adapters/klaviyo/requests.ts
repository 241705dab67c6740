import { textOf, type Delivery, type Json, type JsonObject } from '@weir/adapter';
import { WeirError } from '@weir/errors';

/** What the description states: "The maximum allowed payload size is 100KB"; "must not exceed 5 MB", "400 properties", "100 KB" a string, metric names "less than 128 characters", time "after the year 1990 and can only be up to 1 year in the future". */
const importBytes = 100 * 1024;
const eventBytes = 5 * 1024 * 1024;
const maxProperties = 400;
const maxText = 100 * 1024;
const metricName = 127;
const earliest = Date.UTC(1991, 0, 1);
const year = 365 * 86_400_000;

function refuse(message: string): never {
  throw new WeirError('delivery-unbuildable', message);
}

/** Leaves out what is not known: a null would clear the field at Klaviyo. */
function known(fields: Readonly<Record<string, Json | undefined>>): JsonObject {
  const out: JsonObject = Object.create(null) as JsonObject;
  for (const [key, value] of Object.entries(fields)) if (value !== undefined && value !== null && !(typeof value === 'object' && !Array.isArray(value) && Object.keys(value).length === 0)) out[key] = value;
  return out;
}

function identifiers(record: JsonObject, more: JsonObject = {}): JsonObject {
  const found = known({ email: record['email'], phone_number: record['phone'], external_id: record['userId'], ...more });
  return Object.keys(found).length > 0 ? found : refuse('Klaviyo needs an identifier of the person');
}

function profileImport(record: JsonObject): JsonObject {
  const location = known({ address1: record['street'], city: record['city'], region: record['region'], zip: record['postalCode'], country: record['country'], timezone: record['timezone'] });
  const properties = known({ ...(record['attributes'] as JsonObject | undefined), plan: record['plan'], lifecycle_stage: record['lifecycleStage'] });
  const attributes = { ...identifiers(record), ...known({ first_name: record['firstName'], last_name: record['lastName'], organization: record['company'], locale: record['locale'], title: record['title'], image: record['avatar'], location, properties }) };
  return { data: { type: 'profile', attributes } };
}

/** The event's own properties; text that is no JSON object is kept under `properties`. */
function ownProperties(text: string | undefined): JsonObject {
  if (text === undefined) return {};
  try {
    const value = JSON.parse(text) as Json;
    return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : { properties: value };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return { properties: text };
  }
}

function propertiesOf(record: JsonObject, order: boolean): JsonObject {
  const properties = order
    ? known({ order_id: record['orderId'], coupon: record['coupon'], affiliation: record['affiliation'], items: record['items'], tax: record['tax'], shipping: record['shipping'], discount: record['discount'] })
    : known({ ...ownProperties(textOf(record, 'properties')), category: record['category'], url: record['url'], message_id: record['messageId'], reason: record['reason'] });
  if (Object.keys(properties).length > maxProperties) refuse(`more than ${maxProperties} properties`);
  for (const value of Object.values(properties)) if (typeof value === 'string' && Buffer.byteLength(value) > maxText) refuse('a property is over 100 KB');
  return properties;
}

function event(delivery: Delivery, key: string): JsonObject {
  const { record, recordType } = delivery;
  const order = recordType === 'weir.canonical.Order';
  const name = order ? `Order ${String(record['status'])}` : textOf(record, 'name') ?? refuse('the event has no name');
  const time = Number(record['occurredAt']);
  if (!(time >= earliest && time <= delivery.acceptedAt + year)) refuse('Klaviyo takes events from 1991 on, and at most a year ahead');
  const attributes: JsonObject = {
    properties: propertiesOf(record, order), unique_id: key, time: new Date(time).toISOString(),
    ...known({ value: order ? record['total'] : record['value'], value_currency: record['currency'] }),
    metric: { data: { type: 'metric', attributes: { name: name.slice(0, metricName).toWellFormed() } } },
    profile: { data: { type: 'profile', attributes: identifiers(record, { anonymous_id: record['anonymousId'] ?? null }) } },
  };
  return { data: { type: 'event', attributes } };
}

/**
 * Channels that a change is about. A grant opens only the channel that it names (none = e-mail); a withdrawal without a
 * channel closes every channel that can be addressed.
 */
function contacts(record: JsonObject, granted: boolean): [channel: 'email' | 'sms', contact: JsonObject][] {
  const channel = record['channel'] ?? (granted ? 'email' : null);
  const all = [['email', known({ email: record['email'] })], ['sms', known({ phone_number: record['phone'] })]] as [channel: 'email' | 'sms', contact: JsonObject][];
  const found = all.filter(([name, contact]) => (channel === null || channel === name) && Object.keys(contact).length > 0);
  return found.length > 0 ? found : refuse(`Klaviyo needs the e-mail address or phone number of the channel ${String(channel ?? '(every)')}`);
}

function subscription(record: JsonObject, granted: boolean, listId: string | undefined): JsonObject {
  const state = record['state'];
  if (granted ? state !== 'granted' : state !== 'withdrawn' && state !== 'denied') refuse(`a consent that is ${String(state)} is no ${granted ? 'subscription' : 'withdrawal'}`);
  if (granted && record['topic'] !== null && record['topic'] !== undefined) refuse('a grant for one topic is not a subscription to all');
  const found = contacts(record, granted);
  const consent = granted ? 'SUBSCRIBED' : 'UNSUBSCRIBED';
  const attributes: JsonObject = { ...Object.assign({}, ...found.map(([, contact]) => contact)) as JsonObject, subscriptions: Object.fromEntries(found.map(([channel]) => [channel, { marketing: { consent } }])) };
  const type = granted ? 'profile-subscription-bulk-create-job' : 'profile-subscription-bulk-delete-job';
  const list: JsonObject = listId !== undefined ? { relationships: { list: { data: { type: 'list', id: listId } } } } : {};
  return { data: { type, attributes: { profiles: { data: [{ type: 'profile', attributes }] } }, ...list } };
}

/** "If multiple identifiers are provided, we will return an error": the address, or else the number. */
function deletion(record: JsonObject): JsonObject {
  const email = textOf(record, 'email');
  const phone = textOf(record, 'phone');
  if (email === undefined && phone === undefined) refuse('Klaviyo needs the e-mail address or phone number of who is to be deleted');
  const attributes: JsonObject = email === undefined ? { phone_number: phone! } : { email };
  return { data: { type: 'data-privacy-deletion-job', attributes: { profile: { data: { type: 'profile', attributes } } } } };
}

/** What a delivery sets, for a look at the profile afterwards: the identifier to find it by, its attributes, and the consent of channels. Throws delivery-unbuildable. */
export function expected(delivery: Delivery): { readonly filter: string; readonly attributes: JsonObject; readonly consents: ReadonlyArray<readonly [channel: string, consent: string]> } {
  const { operation, record } = delivery;
  if (operation !== 'profile-import' && operation !== 'subscribe' && operation !== 'unsubscribe') return refuse(`${operation} cannot be read back`);
  const by = ([['email', 'email'], ['phone_number', 'phone'], ['external_id', 'userId']] as const).find(([, field]) => textOf(record, field) !== undefined) ?? refuse('Klaviyo needs an identifier of the person');
  const value = textOf(record, by[1])!;
  if (/["\\]/.test(value)) refuse(`the ${by[1]} cannot stand in a filter`);
  const granted = operation === 'subscribe';
  const consents = operation === 'profile-import' ? [] : contacts(record, granted).map(([channel]) => [channel, granted ? 'SUBSCRIBED' : 'UNSUBSCRIBED'] as const);
  const attributes = operation === 'profile-import' ? (profileImport(record)['data'] as JsonObject)['attributes'] as JsonObject : {};
  return { filter: `equals(${by[0]},${JSON.stringify(value)})`, attributes, consents };
}

/** Path and JSON:API body of a delivery. Throws delivery-unbuildable. */
export function build(delivery: Delivery, key: string, listId: string | undefined): { readonly path: string; readonly body: string } {
  const { operation, record } = delivery;
  const make = (): [path: string, body: JsonObject, maxBytes: number] => {
    switch (operation) {
      case 'profile-import': return ['/api/profile-import', profileImport(record), importBytes];
      case 'event': return ['/api/events', event(delivery, key), eventBytes];
      case 'subscribe': return ['/api/profile-subscription-bulk-create-jobs', subscription(record, true, listId), importBytes];
      case 'unsubscribe': return ['/api/profile-subscription-bulk-delete-jobs', subscription(record, false, undefined), importBytes];
      case 'delete-profile': return ['/api/data-privacy-deletion-jobs', deletion(record), importBytes];
      default: return refuse(`no operation ${operation}`);
    }
  };
  const [path, content, maxBytes] = make();
  const body = JSON.stringify(content);
  if (Buffer.byteLength(body) > maxBytes) refuse(`the request is over Klaviyo's ${maxBytes / 1024} KB`);
  return { path, body };
}
