import type { Json } from '@weir/adapter';
import type { ConsentTables } from '@weir/consent';
import { findWeirError, WeirError } from '@weir/errors';
import { apiSource } from '@weir/pipeline';
import { closes, consentKey, everyPurpose, foldConsent, type ConsentState } from '@weir/policy';
import { checkOrder, consentIds, everything, keyedIdsOf, maxOrderBytes, type ConsentOrder, type Release } from '@weir/release';
import { anyOf, list, named, nullable, object, text, type ServiceContext, type TypeOf } from '@weir/service';
import type { FastifyInstance } from 'fastify';

/** A change for `POST /v1/consent` that is not sent yet, with the Idempotency-Key that it would have. */
export interface PreviewedChange {
  readonly order: Json;
  /** Absent: a new one. */
  readonly key?: string;
}

const word = 'granted, denied, withdrawn, unknown, expired; none = nothing is known. Of several identifiers what closes counts first.';
const changePreview = named('ConsentPreview', anyOf('What would become of a change: why it is refused, or the state of the person at its purpose, channel and topic before and after it.',
  object('It would be refused.', { problem: text('Why.') }),
  object('It would be taken.', { before: text(word), after: text(word), why: nullable(text('Of a grant that opens nothing: why.')) }),
));
export type ChangePreview = TypeOf<typeof changePreview>;

export interface ConsentPreview {
  /** One after the other, each on what those before it made. `principal` is who would send them. Throws not-ready while the tables are read. */
  preview(changes: readonly PreviewedChange[], principal: string): ChangePreview[];
}

/** Behind every offset that a state can have. */
const firstOffset = 2 ** 52;

/** Runs changes through the check of the consent API and the fold of the policy service, on the states that decide; nothing is kept. */
export function createConsentPreview(context: Pick<ServiceContext, 'workspaceKey' | 'releases' | 'clock'>, tables: Pick<ConsentTables, 'caughtUp' | 'stored'>): ConsentPreview {
  const { workspaceKey, releases, clock } = context;

  function previewOne(order: ConsentOrder, output: string, made: Map<string, ConsentState>, place: number, { consent: rule }: Release): ChangePreview {
    const { purpose, channel, topic, state } = order;
    const at = clock.now() + place;
    const stateAt = (key: string): ConsentState | undefined => made.get(key) ?? tables.stored(key)?.state;
    const [before, after]: [string[], string[]] = [[], []];
    let why: string | null = null;
    for (const id of keyedIdsOf(workspaceKey, order.identifiers)) {
      const key = consentKey(id, purpose, channel ?? '', topic ?? '');
      const own = stateAt(key);
      const stop = purpose === everyPurpose ? undefined : stateAt(consentKey(id, everyPurpose, '', ''));
      const change = { ...order, channel: channel ?? '', topic: topic ?? '', changeId: output, source: apiSource, acceptedAt: at, loggedAt: at, occurredAt: order.occurredAt ?? at };
      const next = foldConsent(own, id, change, firstOffset + place, rule, stop);
      if (next !== undefined) made.set(key, next);
      before.push(wordOf(own, stop, at));
      after.push(wordOf(next ?? own, stop, at));
      if (state === 'granted' && closes(after.at(-1)!)) why ??= whyClosed(order, output, own, next, stop, rule?.kind ?? 'log-order');
    }
    return { before: together(before), after: together(after), why };
  }

  return {
    preview(changes, principal) {
      if (!tables.caughtUp()) throw new WeirError('not-ready', 'the tables of consent are being read');
      const release = releases.current();
      const made = new Map<string, ConsentState>();
      return changes.map(({ order: json, key }, place) => {
        const order = checked(json, release);
        if ('problem' in order) return order;
        // Only a repeated grant does nothing: a no under a key of before closes what was opened since.
        const output = key === undefined || order.state !== 'granted' ? `preview-${place}` : consentIds(apiSource, `${principal}/${key}`, order).output;
        return previewOne(order, output, made, place, release);
      });
    },
  };
}

/** As the consent API would take it. */
function checked(json: Json, { policy }: Release): ConsentOrder | { readonly problem: string } {
  if (Buffer.byteLength(JSON.stringify(json)) > maxOrderBytes) return { problem: `it is over ${maxOrderBytes / 1024} KiB` };
  try {
    return checkOrder(json, policy);
  } catch (error) {
    const known = findWeirError(error);
    if (known?.code !== 'bad-request') throw error;
    return { problem: known.message };
  }
}

/** What a state says now, under the one for every purpose. */
function wordOf(own: ConsentState | undefined, stop: ConsentState | undefined, now: number): string {
  if (own !== undefined && closes(own.state)) return own.state;
  const expired = own?.state === 'granted' && own.expiresAt !== null && own.expiresAt <= now;
  if (stop !== undefined && closes(stop.state) && (expired || own?.state !== 'granted' || own.over !== stop.changeId)) return stop.state;
  return expired ? 'expired' : own?.state ?? 'none';
}

/** What the words of several identifiers of one person add up to, as a decision takes them. */
function together(words: readonly string[]): string {
  return words.find(closes) ?? ['granted', 'expired', 'unknown'].find((word) => words.includes(word)) ?? 'none';
}

function whyClosed(order: ConsentOrder, output: string, own: ConsentState | undefined, next: ConsentState | undefined, stop: ConsentState | undefined, rule: string): string {
  if (own?.seen.includes(output) === true) return 'this grant was recorded before, and opens nothing again';
  const closedAt = Math.max(own?.changedAt ?? 0, stop?.changedAt ?? 0);
  if (order.occurredAt !== null && order.occurredAt < closedAt) return 'it happened before the person said no';
  const closers = (next ?? own)?.closedBy ?? [];
  return closers.length === 0 ? 'what closed it was accepted later' : `closed by ${closers.join(', ')}, and ${apiSource} may not open that (${rule})`;
}

const body = {
  type: 'object', additionalProperties: false, required: ['changes'],
  properties: { changes: { type: 'array', minItems: 1, maxItems: 500, items: { type: 'object', additionalProperties: false, required: ['order'], properties: { order: { type: 'object', description: 'A body of POST /v1/consent.' }, key: { type: 'string', pattern: '^[\\x21-\\x7e]{1,200}$', description: 'The Idempotency-Key that it would have; absent = a new one.' } } } } },
};
const bodyBytes = 4 * 1024 * 1024;

/** POST /v1/consent/preview: nothing is recorded; who looked is in the audit log, at whom is not. */
export function consentPreviewRoute(app: FastifyInstance, consent: ConsentPreview): void {
  app.post<{ Body: { changes: PreviewedChange[] } }>('/v1/consent/preview', { bodyLimit: bodyBytes, schema: { body }, config: { replies: { 200: object('What would become of each.', { changes: list(changePreview, 'In the order of the request, each on what those before it made.') }) }, permission: 'consent.read', scope: () => everything, action: 'consent.preview', privateBody: true, target: (request) => `${(request.body as { changes: unknown[] }).changes.length} changes`, summary: 'What changes of consent would do, or why each is refused; nothing is recorded.' } }, async (request) => ({ changes: consent.preview(request.body.changes, request.principal.id) }));
}
