import { readAdapterFile, registry } from '@weir/adapters';
import { compileRelease, withDefaults, type Release } from '@weir/release';

const operation = (kind: string, accepts: string, path: string, idempotency: string): string => `    ${path}:\n      kind: ${kind}\n      accepts: [${accepts}]\n      method: POST\n      path: /${path}\n      headers: { x-key: "{{key}}" }\n      idempotency: ${idempotency}\n`;
const keyed = '{ scheme: header, name: Idempotency-Key, window: 24h, pastWindow: hold }';
const destination = (name: string, operations: string, routes: string): string => `adapter: http\nconfig:\n  baseUrl: sandbox://${name}\n  operations:\n${operations}routes:\n${routes}concurrency: 4\n`;

/** Two sources of one kind and a polled list; a vendor that knows keys, one that does not, and one that needs consent and is the second vendor of the first: of its events by measure, of its profiles when it is away. */
const files: Readonly<Record<string, string>> = {
  'weir.yaml': 'name: simulated\n',
  'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n  email-marketing: { legalBasis: consent, doc: Newsletter. }\n',
  'policies/all.yaml': 'rules:\n  - { name: all, effect: allow, when: \'purpose in ["service", "email-marketing"]\' }\n',
  'sources/shop.yaml': 'adapter: segment\nconfig: { writeKey: { secret: SHOP_KEY } }\n',
  'sources/app.yaml': 'adapter: segment\nconfig: { writeKey: { secret: APP_KEY } }\n',
  'sources/list.yaml': 'adapter: http-poll\nconfig:\n  url: "http://list.example/members"\n  items: data\n  cursor: token\n  cursorField: next\n  cursorParam: cursor\n  id: id\n  version: updated_at\n  every: 1\n  requestsPerMinute: 600\nmapping: list.yaml\n',
  'mappings/list.yaml': 'mapping: list\noutputs:\n  profile:\n    record: Profile\n    objectKey: id\n    fields:\n      userId: user_id\n      email: { from: email, pipe: [email] }\n      plan: plan\n',
  'destinations/warehouse.yaml': destination('warehouse', operation('use', 'Profile, Event', 'insert', keyed), '  - { on: Profile, operation: insert, purpose: service, via: [{ destination: newsletter, operation: copy, after: 1s }] }\n  - { on: Event, operation: insert, purpose: service, via: [{ destination: newsletter, operation: track, after: 1s, prefer: measured }] }\n'),
  'destinations/blind.yaml': destination('blind', operation('use', 'Profile', 'insert', '{ scheme: none, pastWindow: hold }'), '  - { on: Profile, operation: insert, purpose: service }\n'),
  'destinations/newsletter.yaml': destination('newsletter', operation('use', 'Profile', 'subscribe', keyed) + operation('use', 'Event', 'track', keyed) + operation('use', 'Profile', 'copy', keyed) + operation('restrict', 'ConsentChange', 'unsubscribe', '{ scheme: header, name: Idempotency-Key, window: 24h, pastWindow: resend }'), '  - { on: Profile, operation: subscribe, purpose: email-marketing, channel: email }\n  - { on: ConsentChange, operation: unsubscribe, when: record.state == "withdrawn" }\n'),
};

export function simRelease(): Release {
  return compileRelease(withDefaults(Object.entries(files).map(([path, content]) => ({ path, content })), registry, readAdapterFile), { adapters: registry });
}
