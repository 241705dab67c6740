import { createHash } from 'node:crypto';
import { findWeirError } from '@weir/errors';
import { parseIdentifier, type ExternalId } from '@weir/release';
import { openVault } from '@weir/vault';
import { adminTokenSecret, reach, type Client } from './client.ts';
import { Finding, UsageError, type Target } from './command.ts';

/** A change for `POST /v1/consent`. */
export interface ConsentOrder {
  readonly identifiers: { readonly userId?: string; readonly email?: string; readonly phone?: string; readonly anonymousId?: string; readonly externalIds?: readonly ExternalId[] };
  readonly purpose: string;
  readonly state: string;
  readonly [field: string]: unknown;
}
export interface ConsentAnswer { readonly status: number; readonly id?: string; readonly state?: string; readonly waitedMs?: number; /** Of a grant: false = it opened nothing. */ readonly opened?: boolean; readonly message?: string; readonly changes?: ReadonlyArray<{ readonly purpose: string; readonly id: string }> }

/** What a person types, as the consent API wants it. Throws UsageError for what is no identifier: it must be nobody's, not a user's of that name. */
export function identifiersOf(text: string): ConsentOrder['identifiers'] {
  try {
    const { externalIds, ...rest } = parseIdentifier(text);
    return externalIds.length === 0 ? rest : { ...rest, externalIds };
  } catch (error) {
    const known = findWeirError(error);
    throw known?.code === 'bad-request' ? new UsageError(known.message) : error;
  }
}

/** What is known of the consent of a person, under all identifiers that are linked. */
export interface PersonConsent {
  /** `unclear`: nothing but a no of the consent API is known, or nothing is sealed, so that records do not show. */
  readonly known: 'yes' | 'unclear' | 'nobody';
  /** null = too many are linked. */
  readonly identifiers: number | null;
  readonly states: ReadonlyArray<{ readonly of: string; readonly purpose: string; readonly channel: string; readonly topic: string; readonly state: string; readonly source: string; readonly changedAt: string; readonly expiresAt: string | null; readonly proof: string | null }>;
  readonly purposes: ReadonlyArray<{ readonly purpose: string; readonly legalBasis: string; readonly open: boolean; readonly reason: string | null }>;
}

/** Of each of these people, in the same order. */
export async function lookUpConsent(client: Client, people: ReadonlyArray<ConsentOrder['identifiers']>, signal?: AbortSignal): Promise<readonly PersonConsent[]> {
  return (await client.post<{ people: readonly PersonConsent[] }>('/v1/consent/lookup', { people }, signal)).people;
}

const waitMs = 60_000;
const retries = 100;

/** Sends changes to ingest; asks again while it is told to wait. */
export function createConsentSender(target: Target, signal: AbortSignal): (order: ConsentOrder, options: { readonly wait: boolean; readonly key?: string }) => Promise<ConsentAnswer> {
  const vault = openVault({ dataDir: target.dataDir, env: target.env });
  const own = target.env['WEIR_TOKEN'] ?? '';
  if (own === '' && !vault.has(adminTokenSecret)) throw new Finding(`no admin token in ${target.dataDir}: set WEIR_TOKEN or WEIR_DATA`);
  const token = own === '' ? vault.get(adminTokenSecret).reveal() : own;
  const url = new URL(`http://${target.host}:${target.port}/v1/consent`);
  return async (order, { wait, key }) => {
    const address = wait ? new URL('?wait=applied', url) : url;
    for (let attempt = 0; ; attempt++) {
      const response = await reach(address, { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) }, body: JSON.stringify(order), signal: AbortSignal.any([signal, AbortSignal.timeout(waitMs)]) });
      const body = (await response.json()) as ConsentAnswer;
      if ((response.status !== 429 && response.status !== 503) || attempt >= retries) return { ...body, status: response.status };
      await new Promise((done) => setTimeout(done, Math.min(10, Number(response.headers.get('retry-after') ?? 1)) * 1000));
    }
  };
}

/**
 * The key of a row. A grant is the same change in every import of the file, so that importing it again opens nothing that
 * was closed since. Everything else closes once more in each `run`: a grant may have come in between, and a no that was
 * folded before would be dropped as seen; closing twice does no harm.
 */
export const importKey = (order: ConsentOrder, line: number, run: string): string => `import-${createHash('sha256').update(`${order.state === 'granted' ? '' : `${run}\u0000`}${line}\u0000${JSON.stringify(order)}`).digest('hex').slice(0, 40)}`;
