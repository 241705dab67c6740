/** The work of the benchmark `normalizer`: contact webhooks of about 880 bytes, and the mapping and contract of 26 fields that peers/kafka-streams does by hand. */
import { H, itemHash } from '@weir/pipeline';
import type { Log, OutRecord, Serde } from '@weir/log';
import { createKeyRing, rawOwner, seal, type KeyRing } from '@weir/seal';
import { createLogger } from '@weir/telemetry';

export const mapping = `mapping: contacts
outputs:
  profile:
    record: Profile
    objectKey: data.user_id
    fields:
      occurredAt: { from: timestamp, pipe: [timestamp] }
      userId: data.user_id
      email: { from: data.email, pipe: [email] }
      phone: { from: data.phone, pipe: [trim] }
      firstName: { from: data.first_name, pipe: [trim] }
      lastName: { from: data.last_name, pipe: [trim] }
      title: { from: data.title, pipe: [trim] }
      website: data.website
      company: { from: data.company, pipe: [trim] }
      locale: data.locale
      timezone: data.timezone
      street: { from: data.address.street, pipe: [trim] }
      city: { from: data.address.city, pipe: [trim] }
      region: { from: data.address.region, pipe: [trim] }
      postalCode: data.address.postal_code
      country: { from: data.address.country, pipe: [country] }
      plan: { from: data.plan, pipe: [lower] }
      lifecycleStage: { from: data.stage, pipe: [lower] }
      currency: { from: data.currency, pipe: [currency] }
      balance: { from: data.balance, pipe: [integer] }
      createdAt: { from: data.created_at, pipe: [timestamp] }
      updatedAt: { from: data.updated_at, pipe: [timestamp] }
`;

export const contract = `apiVersion: v3.1.0
kind: DataContract
id: contacts
version: 1.0.0
status: active
schema:
  - name: Profile
    properties:
      - { name: userId, required: true }
      - { name: email, required: true }
      - { name: country, required: true }
      - { name: firstName, logicalTypeOptions: { maxLength: 100 } }
      - { name: lastName, logicalTypeOptions: { maxLength: 100 } }
      - { name: balance, logicalTypeOptions: { minimum: 0 } }
`;

/** People that the contacts are about: each returns every 20,000 records. */
const people = 20_000;
const firstNames = ['Ada', 'Grace', 'Jürgen', 'Małgorzata', 'Edsger', 'Barbara', 'Søren', 'Alan'];
const cities = ['Berlin', 'København', 'Lisboa', 'Kraków', 'Utrecht', 'Graz'];

/** The webhook with this number: always the same bytes. */
export function contact(i: number): Buffer {
  const person = (i * 7919) % people;
  const first = firstNames[person % firstNames.length]!;
  return Buffer.from(JSON.stringify({
    type: 'contact.updated', timestamp: new Date(1_790_000_000_000 + i * 137).toISOString(),
    data: {
      user_id: `usr_${String(person).padStart(8, '0')}`, email: `Person.${person}@Larkspur-${person % 97}.example`, phone: `+49301${String(person).padStart(7, '0')}`,
      first_name: ` ${first}`, last_name: `Lovelace-${person % 301}`, title: 'Head of Field Operations', website: `https://larkspur-${person % 97}.example/people/${person}`, company: `Larkspur Outfitters ${person % 97} GmbH`,
      locale: 'de-DE', timezone: 'Europe/Berlin', address: { street: `Unter den Linden ${person % 77}`, city: cities[person % cities.length], region: 'BE', postal_code: `10${String(person % 1000).padStart(3, '0')}`, country: 'de', floor: person % 9 },
      plan: 'Enterprise', stage: 'Customer', currency: 'eur', balance: (person * 31) % 100_000, created_at: '2024-03-01T08:00:00.000Z', updated_at: new Date(1_789_000_000_000 + i * 91).toISOString(),
      tags: ['outdoor', 'newsletter', `cohort-${i % 12}`], score: i % 100, owner: { id: `own_${i % 40}`, team: 'field' }, source_url: `https://larkspur.example/forms/spring?campaign=${i % 500}&medium=email`, subscribed: i % 3 === 0, note: null,
    },
  }));
}

/** The raw record with this number, as ingest writes it; the caller knows the partition of a key. */
export function rawContact(i: number, partitionFor: (key: Buffer) => number): OutRecord {
  const value = contact(i);
  const key = Buffer.from(`usr_${String((i * 7919) % people).padStart(8, '0')}`);
  const headers: [string, string][] = [[H.event, eventOf(i)], [H.hash, itemHash(value)], [H.source, 'contacts'], [H.accepted, String(acceptedAt(i))], [H.traceparent, `00-${String(i).padStart(32, '1')}-${String(i).padStart(16, '2')}-01`]];
  return { partition: partitionFor(key), key, value, headers: headers.map(([name, text]) => [name, Buffer.from(text)] as const) };
}

/** The same as ingest writes it when it seals: value and what surrounded it under the key of source and day. */
export function sealedContact(i: number, partitionFor: (key: Buffer) => number, keys: Pick<KeyRing, 'current'>): OutRecord {
  const plain = rawContact(i, partitionFor);
  const key = keys.current(rawOwner('contacts', acceptedAt(i)))!;
  return { ...plain, value: seal(key, plain.value!), headers: [...plain.headers!, [H.envelope, seal(key, Buffer.from(JSON.stringify({ id: `msg-${i}` })))]] };
}

/** Owners of the keys of the first `count` records. */
export const rawOwners = (count: number): string[] => [...new Set(Array.from({ length: Math.ceil(count / 1_000_000) + 1 }, (_, n) => rawOwner('contacts', acceptedAt(Math.min(n * 1_000_000, count)))))];

/** Ring of a workspace whose key is that of parties/normalizer.ts. */
export async function benchKeys(log: Log, serde: Serde, topic: string, stateDir: string): Promise<KeyRing> {
  const keys = await createKeyRing({ log, serde, topic, workspaceKey: benchWorkspaceKey, stateDir, logger: createLogger({ service: 'bench', level: 'silent' }), now: Date.now }, (error) => { throw error; });
  await keys.start();
  return keys;
}
export const benchWorkspaceKey = Buffer.alloc(32, 7);

const acceptedAt = (i: number): number => 1_790_000_100_000 + i;

/** 32 hex digits, spread over the whole range as those of a hash are (Fibonacci hashing), and the number at their end. */
export const hex = (i: number): string => ((BigInt(i) * 0x9e3779b97f4a7c15n) & 0xffffffffffffffffn).toString(16).padStart(16, '0') + i.toString(16).padStart(16, '0');

export const eventOf = (i: number): string => `evt_${hex(i)}`;

/** The number in the id of an event. */
export const numberOf = (event: string): number => Number.parseInt(event.slice(-16), 16);
