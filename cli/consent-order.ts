import { phoneNumber } from '@weir/mapping';
import type { ConsentOrder } from './consent-api.ts';

/** The identifiers as mappings keep them, each with its type: what two rows of one person share. */
export function namesOf({ externalIds = [], ...single }: ConsentOrder['identifiers']): string[] {
  const written = (type: string, value: string): string => (type === 'email' ? value.trim().toLowerCase() : type === 'phone' ? phoneNumber(value) ?? value.trim() : value.trim());
  return [...Object.entries(single).map(([type, value]) => `${type}:${written(type, value)}`), ...externalIds.map(({ type, value }) => `external:${type}:${value}`.trim())];
}

/**
 * Sends rows side by side, at most `atOnce`, in an order that opens nothing which a later row closes: a row follows all
 * before it that share an identifier, and one that is no grant follows every grant before it, since two rows may be of one
 * person without a sign of it in the file (only a grant that is accepted after a withdrawal opens again). Resolves when all
 * that were begun are answered; rejects with the first error, after which none is begun, as when `signal` aborts.
 */
export async function sendInOrder<Row extends { readonly order: ConsentOrder }>(rows: readonly Row[], send: (row: Row) => Promise<void>, atOnce: number, signal: AbortSignal): Promise<void> {
  const last = new Map<string, Promise<void>>();
  const running = new Set<Promise<void>>();
  const grants = new Set<Promise<void>>();
  let failed: { readonly error: unknown } | undefined;

  async function begin(row: Row, before: readonly Promise<void>[]): Promise<void> {
    await Promise.all(before);
    if (failed !== undefined || signal.aborted) return;
    try {
      await send(row);
    } catch (error) {
      failed ??= { error };
    }
  }

  for (const row of rows) {
    const { identifiers, state } = row.order;
    const isGrant = state === 'granted';
    if (!isGrant) await Promise.all(grants);
    while (running.size >= atOnce) await Promise.race(running);
    if (failed !== undefined || signal.aborted) break;
    const names = namesOf(identifiers);
    const work: Promise<void> = begin(row, names.flatMap((name) => last.get(name) ?? [])).finally(() => {
      running.delete(work);
      grants.delete(work);
      for (const name of names) if (last.get(name) === work) last.delete(name);
    });
    running.add(work);
    if (isGrant) grants.add(work);
    for (const name of names) last.set(name, work);
  }
  await Promise.all(running);
  if (failed !== undefined) throw failed.error;
}
