import type { VendorState } from './types.ts';
import { canonical, digest, isObject, own, text } from './values.ts';

/** Strongest first. The description names the identifiers, not their precedence: id, then the customer's own id, then the addresses. */
const identifierTypes = ['id', 'external_id', 'email', 'phone_number', 'anonymous_id'] as const;
export type ProfileIdentifier = readonly [type: string, value: string];

export interface Profile {
  readonly id: string;
  /** Grows with every change. */
  readonly v: number;
  readonly attributes: Record<string, unknown>;
  readonly subscriptions: Record<string, string>;
}

/** In the place of a profile that was deleted; its state cannot lose a key. */
const erased = '';

interface Change {
  readonly profile: Profile;
  readonly changed: boolean;
  readonly puts: ReadonlyArray<readonly [string, string]>;
}

export interface Profiles {
  find(ids: readonly ProfileIdentifier[]): Profile | undefined;
  /** Id that a new profile with these identifiers gets. */
  idFor(ids: readonly ProfileIdentifier[]): string;
  upsert(profile: Profile | undefined, ids: readonly ProfileIdentifier[], attributes: Readonly<Record<string, unknown>>): Change;
  /** Sets the consent of channels; a profile that is not there is created. Sees the changes made before through this object. */
  subscribe(ids: readonly ProfileIdentifier[], channels: readonly string[], list: string, consent: string): Change;
  /** The profile with this identifier is gone; undefined when there was none. */
  erase(id: ProfileIdentifier): { readonly profile: Profile; readonly puts: Change['puts'] } | undefined;
}

/** Identifiers of a profile resource object, e-mail without regard to case. */
export function identifiersOf(resource: unknown): ProfileIdentifier[] {
  const found: ProfileIdentifier[] = [];
  for (const type of identifierTypes) {
    const value = text(type === 'id' ? own(resource, 'id') : own(resource, 'attributes', type));
    if (value !== undefined) found.push([type, type === 'email' ? value.trim().toLowerCase() : value.trim()]);
  }
  return found;
}

/** `null` clears, absent leaves; location and properties are merged by key. Meta keys of identification are no attributes. */
function merge(before: Readonly<Record<string, unknown>>, given: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const after: Record<string, unknown> = Object.assign(Object.create(null), before);
  for (const [key, value] of Object.entries(given)) {
    if (value === null) delete after[key];
    else if (isObject(value) && (key === 'properties' || key === 'location')) after[key] = merge(isObject(after[key]) ? after[key] : {}, value);
    else after[key] = value;
  }
  return after;
}

/** The profiles of one account. */
export function createProfiles(destination: string, state: VendorState): Profiles {
  const changed = new Map<string, string>();
  const get = (key: string): string | undefined => changed.get(key) ?? state.get(key);
  const identifierKey = ([type, value]: ProfileIdentifier): string => `${destination}/i/${digest(type, value)}`;
  const profileKey = (id: string): string => `${destination}/p/${id}`;

  function load(id: string): Profile | undefined {
    const stored = get(profileKey(id));
    return stored === undefined || stored === erased ? undefined : JSON.parse(stored) as Profile;
  }
  function find(ids: readonly ProfileIdentifier[]): Profile | undefined {
    for (const identifier of ids) {
      const id = identifier[0] === 'id' ? identifier[1] : get(identifierKey(identifier));
      const profile = id === undefined || id.length > 64 ? undefined : load(id);
      if (profile !== undefined) return profile;
    }
    return undefined;
  }
  const idFor = (ids: readonly ProfileIdentifier[]): string => digest('profile', destination, ids[0]);

  function save(before: Profile | undefined, after: Profile, ids: readonly ProfileIdentifier[]): Change {
    const puts: (readonly [string, string])[] = [];
    for (const identifier of ids) {
      const key = identifierKey(identifier);
      if (identifier[0] !== 'id' && get(key) === undefined) puts.push([key, after.id]);
    }
    const same = before !== undefined && canonical([before.attributes, before.subscriptions]) === canonical([after.attributes, after.subscriptions]);
    const profile = same ? before : { ...after, v: (before?.v ?? 0) + 1 };
    if (!same) puts.push([profileKey(profile.id), JSON.stringify(profile)]);
    for (const [key, value] of puts) changed.set(key, value);
    return { profile, changed: !same, puts };
  }

  const empty = (ids: readonly ProfileIdentifier[]): Profile => ({ id: idFor(ids), v: 0, attributes: {}, subscriptions: {} });
  return {
    find,
    idFor,
    upsert(profile, ids, attributes) {
      const base = profile ?? empty(ids);
      return save(profile, { ...base, attributes: merge(base.attributes, attributes) }, ids);
    },
    erase(identifier) {
      const profile = find([identifier]);
      if (profile === undefined) return undefined;
      const puts = [[profileKey(profile.id), erased]] as const;
      changed.set(...puts[0]);
      return { profile, puts };
    },
    subscribe(ids, channels, list, consent) {
      const profile = find(ids);
      const base = profile ?? empty(ids);
      const set = Object.fromEntries(channels.map((channel) => [list === '' ? channel : `${channel}@${digest(list)}`, consent]));
      const addresses = Object.fromEntries(ids.filter(([type]) => type !== 'id'));
      return save(profile, { ...base, attributes: merge(addresses, base.attributes), subscriptions: { ...base.subscriptions, ...set } }, ids);
    },
  };
}
