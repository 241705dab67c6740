import { createHash, randomBytes } from 'node:crypto';
import { WeirError } from '@weir/errors';
import type { Appender, Follower, LogAdmin, Reader, RecordBatch, Serde } from '@weir/log';
import { epochMs, list, named, nullable, object, text, type Schema, type TypeOf } from '@weir/service';
import { createTokenIndex, grantText, leafHeader, parseGrant, tokenKey, type Principal, type ReleaseFile, type StoredToken, type TokenView } from '@weir/release';

export interface Proposal {
  readonly id: string;
  readonly hash: string;
  readonly files: readonly ReleaseFile[];
  readonly message: string | null;
  readonly proposedBy: string;
  readonly proposedAt: number;
  readonly approvedBy: string | null;
  readonly leaf: string;
}

const tokenView = named('Token', object('An API token, without the token itself.', {
  id: text('Id of the token.', { example: 'tok_1b4f0e9851971998' }), name: text('What it is for.'), grants: list(text('`<role>` or `<role>@<source>:<destination>`.', { example: 'operator@*:crm' }), 'What it may do.'), createdAt: epochMs('When it was issued.'), createdBy: text('Who issued it.'), expiresAt: epochMs('When it ends.'), revokedAt: nullable(epochMs('When it was revoked; null = it was not.')),
}));
const proposalView = named('Proposal', object('A release that waits for another person, or was approved.', {
  id: text('Id of the proposal.', { example: 'prop_9f86d081884c7d65' }), hash: text('Hash of the release.'), message: nullable(text('What was said of it.')), proposedBy: text('Who proposed it.'), proposedAt: epochMs('When.'), approvedBy: nullable(text('Who approved it.')),
}));
export const tokensReply = object('API tokens.', { tokens: list(tokenView, 'The newest first, also those that were revoked.') });
export const proposalsReply = object('Proposed releases.', { proposals: list(proposalView, 'The newest 100 of the last 30 days, the newest first.') });
export const revokedToken: Schema<TokenView> = tokenView;
export const issuedToken = named('IssuedToken', object('An API token; it is shown this once.', { ...tokenView.fields, token: text('The token.', { pattern: '^weir_[A-Za-z0-9_-]{43}$' }) }));

const proposalKey = 'proposal/';
const dayMs = 86_400_000;
const maxDays = 366;
/** Each carries a whole workspace: what nobody has approved by then, or what is older than so many, is gone. */
const maxProposals = 100;
const proposalMs = 30 * dayMs;

/** API tokens and proposals: what weir.control says of them. */
export interface Access {
  /** The token itself is in this answer and nowhere else. */
  issue(order: { readonly name: string; readonly grants: readonly string[]; readonly days: number }, by: string, leaf: string): Promise<TypeOf<typeof issuedToken>>;
  revoke(id: string, leaf: string): Promise<TokenView>;
  tokens(): TokenView[];
  /** Undefined: no such token, revoked, or past its end. */
  principalOf(token: string): Principal | undefined;
  propose(order: Pick<Proposal, 'hash' | 'files' | 'message'>, by: string, leaf: string): Promise<Proposal>;
  /** Throws not-found, or self-approval: also for a token that the proposer issued, or whose holder issued the proposer's. */
  approvable(id: string, by: string): Proposal;
  approved(proposal: Proposal, by: string, leaf: string): Promise<void>;
  /** The newest 100 of the last 30 days; older ones are gone. */
  proposals(): Proposal[];
  /** Whether two principals may be one person (packages/release/tokens.ts). */
  sameHand(a: string, b: string): boolean;
  /** Leaves that a record on weir.control names: their changes were made. */
  readonly leaves: ReadonlySet<string>;
  close(): Promise<void>;
}

/** Reads weir.control to its end, then follows it, so a revocation by another instance counts here too. */
export async function openAccess(ports: { readonly reader: Reader; readonly appender: Appender; readonly admin: Pick<LogAdmin, 'endOffsets'>; readonly serde: Serde; readonly topic: string; readonly now: () => number; readonly failed: (error: Error) => void }): Promise<Access> {
  const { reader, appender, serde, topic, now } = ports;
  const index = createTokenIndex(now);
  const proposals = new Map<string, Proposal>();
  const leaves = new Set<string>();

  async function take(batch: RecordBatch): Promise<void> {
    for (const { key, value, headers } of batch.records) {
      const leaf = headers.find(([name]) => name === leafHeader)?.[1].toString('latin1');
      if (leaf !== undefined) leaves.add(leaf);
      const name = key?.toString('utf8') ?? '';
      if (value === null && name.startsWith(proposalKey)) proposals.delete(name.slice(proposalKey.length));
      if (value === null || !(name.startsWith(tokenKey) || name.startsWith(proposalKey))) continue;
      await serde.prepare(value);
      const decoded = serde.decode(value).value as StoredToken & Proposal;
      if (name.startsWith(tokenKey)) index.keep(decoded);
      else proposals.set(decoded.id, decoded);
    }
  }

  async function write(key: string, record: string, value: StoredToken | Proposal): Promise<void> {
    await appender.append(topic, [{ partition: 0, key: Buffer.from(key), value: serde.encode(record, value), headers: [[leafHeader, Buffer.from(value.leaf)]] }]);
  }

  const kept = (): Proposal[] => [...proposals.values()].filter((p) => now() - p.proposedAt < proposalMs).sort((a, b) => b.proposedAt - a.proposedAt).slice(0, maxProposals);

  /** Those that are not kept leave the log too. */
  async function prune(): Promise<void> {
    const stay = new Set(kept().map((p) => p.id));
    const gone = [...proposals.keys()].filter((id) => !stay.has(id));
    if (gone.length > 0) await appender.append(topic, gone.map((id) => ({ partition: 0, key: Buffer.from(proposalKey + id), value: null })));
    for (const id of gone) proposals.delete(id);
  }

  const end = (await ports.admin.endOffsets(topic)).get(0) ?? 0;
  await reader.read(topic, 0, 0, end, take);
  const follower: Follower = await reader.follow(topic, new Map([[0, end]]), take, ports.failed);
  const view = ({ hash: _hash, leaf: _leaf, ...rest }: StoredToken): TokenView => rest;

  return {
    leaves,
    async issue({ name, grants, days }, by, leaf) {
      if (!Number.isInteger(days) || days < 1 || days > maxDays) throw new WeirError('bad-request', `days: a whole number from 1 to ${maxDays}`);
      const token = `weir_${randomBytes(32).toString('base64url')}`;
      const at = now();
      const stored: StoredToken = { id: `tok_${randomBytes(8).toString('hex')}`, name, hash: createHash('sha256').update(token).digest('hex'), grants: grants.map((g) => grantText(parseGrant(g))), createdAt: at, createdBy: by, expiresAt: at + days * dayMs, revokedAt: null, leaf };
      await write(tokenKey + stored.id, 'weir.internal.ApiToken', stored);
      index.keep(stored);
      return { ...view(stored), token };
    },
    async revoke(id, leaf) {
      const token = index.get(id);
      if (token === undefined) throw new WeirError('not-found', `no token ${id}`);
      if (token.revokedAt !== null) return view(token);
      const revoked = { ...token, revokedAt: now(), leaf };
      await write(tokenKey + id, 'weir.internal.ApiToken', revoked);
      index.keep(revoked);
      return view(revoked);
    },
    tokens: () => index.all().map(view).sort((a, b) => b.createdAt - a.createdAt),
    principalOf: index.principalOf,
    async propose(order, by, leaf) {
      const proposal: Proposal = { ...order, id: `prop_${randomBytes(8).toString('hex')}`, proposedBy: by, proposedAt: now(), approvedBy: null, leaf };
      await write(proposalKey + proposal.id, 'weir.internal.ReleaseProposal', proposal);
      proposals.set(proposal.id, proposal);
      await prune();
      return proposal;
    },
    approvable(id, by) {
      const proposal = kept().find((p) => p.id === id);
      if (proposal === undefined) throw new WeirError('not-found', `no proposal ${id}: there is none, or it was left for ${proposalMs / dayMs} days or ${maxProposals} newer ones`);
      if (proposal.approvedBy !== null) throw new WeirError('bad-request', `proposal ${id} was approved already`);
      if (index.sameHand(proposal.proposedBy, by)) throw new WeirError('self-approval');
      return proposal;
    },
    async approved(proposal, by, leaf) {
      const done = { ...proposal, approvedBy: by, leaf };
      await write(proposalKey + proposal.id, 'weir.internal.ReleaseProposal', done);
      proposals.set(proposal.id, done);
    },
    proposals: kept,
    sameHand: index.sameHand,
    close: () => follower.close(),
  };
}
