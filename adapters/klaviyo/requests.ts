import { type AdapterConfig, type Delivery, type Json, type JsonObject } from '@weir/adapter';
import { WeirError } from '@weir/errors';

/** Maximum payload of /api/profile-import; events have the same here. */
const maxBytes = 100 * 1024;

/** Leaves out what is not known: a null would clear the field at Klaviyo. */
function known(fields: Record<string, Json | undefined>): JsonObject {
  const out: JsonObject = {};
  for (const [key, value] of Object.entries(fields)) if (value !== undefined && value !== null && !(typeof value === 'object' && !Array.isArray(value) && Object.keys(value).length === 0)) out[key] = value;
  return out;
}

function identifiers(record: JsonObject): JsonObject {
  const found = known({ email: record['email'], phone_number: record['phone'], external_id: record['userId'] });
  if (Object.keys(found).length === 0) throw new WeirError('delivery-unbuildable', 'Klaviyo needs an e-mail, a phone number or a userId');
  return found;
}

function profileImport(record: JsonObject): JsonObject {
  const location = known({ address1: record['street'], city: record['city'], region: record['region'], zip: record['postalCode'], country: record['country'], timezone: record['timezone'] });
  const properties = known({ ...(record['attributes'] as JsonObject | undefined), plan: record['plan'], lifecycle_stage: record['lifecycleStage'] });
  const attributes = { ...identifiers(record), ...known({ first_name: record['firstName'], last_name: record['lastName'], organization: record['company'], locale: record['locale'], title: record['title'], image: record['avatar'], location, properties }) };
  return { data: { type: 'profile', attributes } };
}

function event(delivery: Delivery, key: string): JsonObject {
  const { record, recordType } = delivery;
  const order = recordType === 'weir.canonical.Order';
  const name = order ? `Order ${String(record['status'])}` : String(record['name']);
  const own: Json = typeof record['properties'] === 'string' ? (JSON.parse(record['properties']) as Json) : {};
  const properties = order
    ? known({ order_id: record['orderId'], coupon: record['coupon'], affiliation: record['affiliation'], items: record['items'], tax: record['tax'], shipping: record['shipping'], discount: record['discount'] })
    : known({ ...(own !== null && typeof own === 'object' && !Array.isArray(own) ? own : {}), category: record['category'], url: record['url'], message_id: record['messageId'], reason: record['reason'] });
  const attributes: JsonObject = {
    properties, unique_id: key, time: new Date(Number(record['occurredAt'])).toISOString(),
    ...known({ value: order ? record['total'] : record['value'], value_currency: record['currency'] }),
    metric: { data: { type: 'metric', attributes: { name: name.slice(0, 127) } } },
    profile: { data: { type: 'profile', attributes: identifiers(record) } },
  };
  return { data: { type: 'event', attributes } };
}

function subscription(record: JsonObject, config: AdapterConfig, consent: 'SUBSCRIBED' | 'UNSUBSCRIBED'): JsonObject {
  const channel = record['channel'] === 'sms' ? 'sms' : 'email';
  const contact = channel === 'sms' ? known({ phone_number: record['phone'] }) : known({ email: record['email'] });
  if (Object.keys(contact).length === 0) throw new WeirError('delivery-unbuildable', `Klaviyo needs ${channel === 'sms' ? 'a phone number' : 'an e-mail address'} to change the subscription of ${channel}`);
  const profile = { type: 'profile', attributes: { ...contact, subscriptions: { [channel]: { marketing: { consent } } } } };
  const type = consent === 'SUBSCRIBED' ? 'profile-subscription-bulk-create-job' : 'profile-subscription-bulk-delete-job';
  const list: JsonObject = typeof config['listId'] === 'string' ? { relationships: { list: { data: { type: 'list', id: config['listId'] } } } } : {};
  return { data: { type, attributes: { profiles: { data: [profile] } }, ...list } };
}

/** Path and JSON:API body of a delivery. Throws delivery-unbuildable. */
export function build(delivery: Delivery, key: string, config: AdapterConfig): { readonly path: string; readonly body: string } {
  const { operation, record } = delivery;
  const made: [string, JsonObject] = operation === 'profile-import' ? ['/api/profile-import', profileImport(record)]
    : operation === 'event' ? ['/api/events', event(delivery, key)]
      : operation === 'subscribe' ? ['/api/profile-subscription-bulk-create-jobs', subscription(record, config, 'SUBSCRIBED')]
        : operation === 'unsubscribe' ? ['/api/profile-subscription-bulk-delete-jobs', subscription(record, config, 'UNSUBSCRIBED')]
          : (() => { throw new WeirError('delivery-unbuildable', `no operation ${operation}`); })();
  const body = JSON.stringify(made[1]);
  if (Buffer.byteLength(body) > maxBytes) throw new WeirError('delivery-unbuildable', 'the request is over Klaviyo\'s 100 KB');
  return { path: made[0], body };
}
