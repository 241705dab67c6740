/** What comes in: calls that senders repeat until they are answered, and a list that is polled. */
import { itemEventId, itemHash } from '@weir/pipeline';
import type { Random } from './time.ts';

export const users = 8;

/** One item that the sender sent. */
export interface Sent {
  readonly n: number;
  readonly source: string;
  /** Key of the object that the item is about. */
  readonly user: string;
  /** Path of the call. */
  readonly url: string;
  readonly kind: 'profile' | 'event' | 'poison' | 'repeat' | 'conflict';
  readonly consent: 'granted' | 'withdrawn' | undefined;
  readonly eventId: string;
  readonly hash: string;
  readonly body: Buffer;
  /** Instance and time of the first try; acknowledged on it or later. */
  firstBy: string;
  firstAt: number;
  ackedBy: string | undefined;
  tries: number;
}

/** What the sender has to send: profiles with and without consent, events, poison, repetitions, the same event with another body, and ids used again for somebody else. */
export function createWorkload(random: Random, count: number): Sent[] {
  const list: Sent[] = [];
  const at = new Date(Date.UTC(2026, 0, 15)).toISOString();
  for (let n = 0; n < count; n++) {
    const roll = random();
    const before = list[Math.floor(random() * list.length)];
    const user = `u${Math.floor(random() * users)}`;
    const source = random() < 0.7 ? 'shop' : 'app';
    if (before !== undefined && roll < 0.06) {
      list.push({ ...before, n, kind: 'repeat' });
      continue;
    }
    const conflict = before !== undefined && before.kind === 'event' && roll < 0.1;
    const kind: Sent['kind'] = conflict ? 'conflict' : roll < 0.13 ? 'poison' : roll < 0.65 ? 'profile' : 'event';
    const consent = kind === 'profile' && random() < 0.6 ? (random() < 0.65 ? 'granted' : 'withdrawn') : undefined;
    // The sender uses the id of one event again for somebody else: that is another event.
    const reused = before !== undefined && before.kind === 'event' && kind === 'event' && before.user !== user && n % 4 === 0;
    const from = conflict ? before : reused ? { user, source: before.source } : { user, source };
    const id = conflict || reused ? (JSON.parse(before.body.toString()) as { messageId: string }).messageId : `m-${n}`;
    const type = kind === 'profile' ? 'identify' : 'track';
    const body = Buffer.from(JSON.stringify({ type, messageId: id, userId: from.user, ...(n % 3 === 0 ? {} : { timestamp: at }), ...(kind === 'profile' ? { traits: { email: `${from.user}@larkspur.example`, plan: `p${n}`, ...(consent === undefined ? {} : { marketingConsent: consent === 'granted' }) } } : kind === 'poison' ? {} : { event: 'Viewed', properties: { n } }) }));
    list.push({ n, source: from.source, user: from.user, url: `/v1/${type}`, kind, consent, eventId: itemEventId(from.source, { parts: [id, type], unique: true, objectKey: from.user }, ''), hash: itemHash(body), body, firstBy: '', firstAt: 0, ackedBy: undefined, tries: 0 });
  }
  return list;
}

/** Profiles of certain people, which say nothing of consent. */
export function createProfiles(random: Random, people: readonly string[], count: number): Sent[] {
  return Array.from({ length: count }, (_, n) => {
    const user = people[Math.floor(random() * people.length)]!;
    const id = `p-${n}`;
    const body = Buffer.from(JSON.stringify({ type: 'identify', messageId: id, userId: user, traits: { email: `${user}@larkspur.example`, plan: `q${n}` } }));
    return { n, source: 'shop', user, url: '/v1/identify', kind: 'profile', consent: undefined, eventId: itemEventId('shop', { parts: [id, 'identify'], unique: true, objectKey: user }, ''), hash: itemHash(body), body, firstBy: '', firstAt: 0, ackedBy: undefined, tries: 0 };
  });
}

/** The list that the poller reads: it grows by one object at a time; a page has up to 5, behind a token. */
export interface PolledList {
  readonly items: readonly Sent[];
  page(cursor: string | null, now: number): { readonly data: readonly unknown[]; readonly next: string };
}

export function createPolledList(count: number, firstMs: number, everyMs: number): PolledList {
  const objects = Array.from({ length: count }, (_, i) => ({ id: `member-${i}`, updated_at: 1, user_id: `u${i % users}`, email: `u${i % users}@larkspur.example`, plan: `list-${i}` }));
  const items = objects.map((object, n): Sent => {
    const body = Buffer.from(JSON.stringify(object));
    const hash = itemHash(body);
    return { n, source: 'list', user: object.id, url: '', kind: 'profile', consent: undefined, eventId: itemEventId('list', { parts: [object.id, '1'], unique: false, objectKey: object.id }, hash), hash, body, firstBy: '', firstAt: 0, ackedBy: 'poll', tries: 0 };
  });
  return {
    items,
    page(cursor, now) {
      const size = Math.max(0, Math.min(count, Math.floor((now - firstMs) / everyMs)));
      const from = Math.min(size, Number(cursor ?? 0));
      const to = Math.min(size, from + 5);
      return { data: objects.slice(from, to), next: String(to) };
    },
  };
}
