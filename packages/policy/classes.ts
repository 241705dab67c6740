import { canonicalSchemas } from './record-view.ts';

/**
 * What kind of data a field holds (ODCS `classification`). `identifier` says who it is about, `personal` is other data
 * about a person, `kyc-sensitive` was collected to know a customer (identity documents, source of funds),
 * `special-category` is GDPR Art. 9. The two sensitive ones are sent for no purpose that does not name them.
 */
export const dataClasses = ['public', 'internal', 'identifier', 'personal', 'financial', 'kyc-sensitive', 'special-category'] as const;
export type DataClass = (typeof dataClasses)[number];

/** Words that contracts use for the same. */
const aliases: Readonly<Record<string, DataClass>> = { pii: 'personal', confidential: 'internal', restricted: 'kyc-sensitive', kyc: 'kyc-sensitive', 'pii-sensitive': 'special-category' };
const sensitive: ReadonlySet<DataClass> = new Set(['kyc-sensitive', 'special-category']);

/** Of several the strictest: later in the list. */
export function dataClass(words: readonly string[]): DataClass | undefined {
  const found = words.map((word) => ((dataClasses as readonly string[]).includes(word) ? (word as DataClass) : Object.hasOwn(aliases, word) ? aliases[word] : undefined)).filter((c) => c !== undefined);
  return found.sort((a, b) => dataClasses.indexOf(b) - dataClasses.indexOf(a))[0];
}
export const classWords: readonly string[] = [...dataClasses, ...Object.keys(aliases)];

/** Without these there is no record: they name it, and none is about a person. */
const technical: ReadonlySet<string> = new Set(['id', 'source', 'occurredAt']);
/** Who a record is about. */
export const identifiers: ReadonlySet<string> = new Set(['objectKey', 'userId', 'anonymousId', 'email', 'phone', 'externalIds', 'previousId']);
const personal: ReadonlySet<string> = new Set([
  'firstName', 'lastName', 'title', 'gender', 'birthday', 'avatar', 'website', 'company', 'locale', 'timezone', 'street', 'city', 'region', 'postalCode', 'country', 'attributes',
  'ip', 'userAgent', 'url', 'referrer', 'properties', 'messageId', 'proof',
]);
/** Records about no person: nothing in them is personal. */
const impersonal: ReadonlySet<string> = new Set(['CampaignMetric', 'Company']);

/** The class of a field that no contract classifies. */
export function defaultClass(recordName: string, field: string): DataClass {
  if (identifiers.has(field)) return 'identifier';
  if (impersonal.has(recordName)) return 'internal';
  if (personal.has(field) || (recordName === 'Profile' && field === 'name')) return 'personal';
  return recordName === 'Profile' && field === 'balance' ? 'financial' : 'internal';
}

/** What a contract says of a field. */
export interface FieldTerms {
  readonly class?: DataClass | undefined;
  /** Purposes it may be used for; they replace those of its class. */
  readonly purposes?: readonly string[] | undefined;
  readonly required?: boolean | undefined;
}

export interface FieldUse {
  readonly name: string;
  readonly class: DataClass | 'technical';
  /** Purposes the field may be sent for. */
  readonly purposes: ReadonlySet<string>;
  readonly required: boolean;
  /** Of a map: keys that a contract classifies apart, with their purposes; the others have those of the field. */
  readonly keys?: ReadonlyMap<string, ReadonlySet<string>>;
}

/** Purposes of each class, from purposes.yaml; undefined = the file has no `classes`. */
export type ClassPurposes = ReadonlyMap<DataClass, readonly string[]> | undefined;

/**
 * Of every field of a canonical record: its class and the purposes it may be sent for. Terms of a contract (of a field, or `<field>.<key>` of a map) come first,
 * then purposes.yaml. Where that has `classes`, a class that is not named there has no purpose; where it has none,
 * every class but the sensitive ones has every purpose. A key without purposes and class of its own has the purposes of its field; a class of
 * a key adds none to those that a contract gave the field.
 */
export function fieldUses(recordName: string, terms: ReadonlyMap<string, FieldTerms>, classes: ClassPurposes, purposes: Iterable<string>): ReadonlyMap<string, FieldUse> {
  const all = [...purposes];
  const found = new Map<string, FieldUse>();
  for (const { name } of canonicalSchemas().get(recordName)?.fields ?? []) {
    if (name === 'extras') continue;
    const said = terms.get(name);
    const kind = said?.class ?? defaultClass(recordName, name);
    const ofClass = (one: DataClass): readonly string[] => (classes === undefined ? (sensitive.has(one) ? [] : all) : classes.get(one) ?? []);
    const own = technical.has(name) ? all : said?.purposes ?? ofClass(kind);
    const ofKey = ({ class: one, purposes: named }: FieldTerms): readonly string[] => named ?? (one === undefined ? own : said?.purposes === undefined ? ofClass(one) : ofClass(one).filter((purpose) => own.includes(purpose)));
    const keys = new Map([...terms].filter(([term]) => term.startsWith(`${name}.`)).map(([term, key]) => [term.slice(name.length + 1), new Set(ofKey(key))] as const));
    found.set(name, { name, class: technical.has(name) ? 'technical' : kind, purposes: new Set(own), required: said?.required === true, ...(keys.size === 0 ? {} : { keys }) });
  }
  return found;
}

/** Told whole: a yes to one channel without its channel is a yes to all. */
const consentRecords = new Set(['ConsentChange', 'ConsentApplied']);

/** What a `restrict` operation may carry: who, and what they want. It has no purpose to be minimised by. */
export function restrictFields(recordName: string): ReadonlySet<string> {
  const fields = canonicalSchemas().get(recordName)?.fields.map((f) => f.name) ?? [];
  return new Set(fields.filter((name) => technical.has(name) || identifiers.has(name) || (consentRecords.has(recordName) && name !== 'extras') || name === 'deleted'));
}
