import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { LogAdmin, Log, Reader, RecordBatch, Serde } from '@weir/log';
import { patiently, type Timers } from '@weir/pipeline';
import { checkUse, type ConsentAnswer, type ConsentEntry, type Routes } from '@weir/policy';
import { isReadable, linkSource, linkValue } from '@weir/seal';
import { createLateTable, createTopicTable, openTable, type LateClock, type Put } from '@weir/state';
import type { Logger } from 'pino';
import { createLinkAges } from './link-ages.ts';
import { createLinkValues, type KeptValue, type TrustsLink } from './link-values.ts';
import { createLinkIndex, trustedWith, type Trusted } from './links.ts';
import { regionOwner, regionValue, type KnownRegion } from './regions.ts';
import { createStateIndex, type StoredState } from './states.ts';

export type { StoredState } from './states.ts';

/** What the tables need; a ServiceContext has all of it. */
export interface ConsentPorts {
  readonly log: Log;
  readonly serde: Serde;
  readonly topics: { readonly consent: string; readonly identity: string };
  /** Caches are made in <stateDir>/consent, <stateDir>/links (with `regions` <stateDir>/people) and, with `linkValues`, <stateDir>/link-values (with `linkSources` <stateDir>/link-records). */
  readonly stateDir: string;
  readonly logger: Logger;
  readonly clock: Timers & LateClock;
}

export interface ConsentOptions {
  readonly open?: typeof openTable | undefined;
  /** Keeps what links have sealed (`linkValues`): for who opens it. */
  readonly linkValues?: boolean;
  /** Keeps which source said each link, beside `linkValues`: for who must not follow all of them. */
  readonly linkSources?: boolean;
  /** Keeps where records said that people are: for who decides on them. */
  readonly regions?: boolean;
  /** Keeps until where the links of somebody stand (`linksEnd`): for who waits until others have them. */
  readonly linkAges?: boolean;
}

/** weir.consent and weir.identity, read whole by this instance. Every answer is synchronous and of this moment. */
export interface ConsentTables {
  /** Read both topics to the end offsets taken now, then follow them. Until then everything is closed. */
  start(): Promise<void>;
  caughtUp(): boolean;
  /** Next offsets per partition of weir.consent that this table has; a copy. */
  consentPositions(): number[];
  /** The same for weir.identity. */
  identityPositions(): number[];
  /** Next offset of one partition of weir.identity. */
  identityPosition(partition: number): number;
  /** True when both tables are at or past these next offsets. */
  atLeast(consentOffsets: readonly number[], identityOffsets: readonly number[]): boolean;
  /**
   * Resolves when both tables have what the topics hold at the time of the call, as the brokers tell it: a broker that was cut off
   * tells less. `atLeast`: next offsets per partition of weir.consent that it is read to all the same, behind records that were acknowledged.
   */
  readToEnd(atLeast?: ReadonlyMap<number, number>): Promise<void>;
  /** Next offsets per partition of weir.identity behind every link of these identifiers that this table has; undefined: it is not known (`linkAges`, and not before `start` resolves). */
  linksEnd(ids: readonly string[]): readonly number[] | undefined;
  /** Somebody waits for what stands on weir.identity now (Follower). */
  hurryLinks(): void;
  /** May a use for this purpose take place now, for all linked identifiers? Rule: docs/policies.md, Consent. @param routes of the policy by which it is decided */
  allows(ids: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: string | null, now: number, routes?: Routes): ConsentAnswer;
  /** Another number after every change of either table; -1 while everything is closed. While it stays, `allows` answers the same by the same routes until the answer's `until`. */
  version(): number;
  /** The identifiers and all that are linked to them; undefined = more than 64, too wide to decide on. */
  linked(ids: readonly string[]): readonly string[] | undefined;
  /** The same by links alone that a trusted source said. Without the option `linkSources` nobody is trusted. A read of each link: not for every record. */
  trusted(ids: readonly string[], trusts: TrustsLink): Trusted;
  /** Tells where records of these identifiers last said that the person is; nothing without the option `regions`. Of those that `linked` gave just now most need no read of the table. */
  regions(ids: readonly string[], tell: (id: string, region: KnownRegion) => void): void;
  /** The sealed identifiers that stand with the links of these, which `linked` gave, the newest first; none without the option `linkValues`. A read of each: not for every record. */
  linkValues(linked: readonly string[]): readonly KeptValue[];
  /** The same question as `allows`, for identifiers that `linked` gave. */
  check(linked: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: string | null, now: number, routes?: Routes): ConsentAnswer;
  /** Changes of this partition of weir.consent.changes below this offset are in the table. */
  folded(partition: number): number;
  /** Every state of one identifier, without those it is linked with. */
  states(id: string): readonly ConsentEntry[] | 'too-many';
  /** The state under a key of weir.consent. */
  stored(key: string): StoredState | undefined;
  /** Keys of the partition, that of its mark (foldedKey) among them, whose newest record on the topic is older than what is known: an owner that had lost the partition wrote late. */
  regressed(partition: number): readonly string[];
  /** Called after each change of either table. */
  onAdvance(listener: () => void): void;
  stop(): Promise<void>;
}

/**
 * Tables of consent and identity over local caches that may be deleted at any time.
 * @param onError told once when a topic can not be followed any more: the process must stop. All answers are closed from then on.
 */
export async function createConsentTables(ports: ConsentPorts, onError: (error: Error) => void, { open = openTable, linkValues: keepsValues = false, linkSources: keepsSources = false, regions: keepsRegions = false, linkAges: keepsAges = false }: ConsentOptions = {}): Promise<ConsentTables> {
  const { log, serde, topics, stateDir, logger } = ports;
  // Links come with every person who is new: with what is fetched anyway.
  const [reader, linkReader, admin]: [Reader, Reader, LogAdmin] = await Promise.all([log.reader({ urgent: true }), log.reader({ shared: true }), log.admin()]);
  const onDiscard = (cache: string) => (reason: string) => logger.warn({ cache, reason }, 'local cache discarded, it is read again from its topic');
  const consentCache = open({ path: join(stateDir, 'consent'), tellsAbsent: true, onDiscard: onDiscard('consent') });
  // Of the layout before, where each identifier had a row of its own.
  rmSync(join(stateDir, 'identity'), { recursive: true, force: true });
  // What was read without regions has none: it is read again.
  if (keepsRegions) rmSync(join(stateDir, 'links'), { recursive: true, force: true });
  const people = keepsRegions ? 'people' : 'links';
  const identityCache = createLateTable(open({ path: join(stateDir, people), tellsAbsent: true, onDiscard: onDiscard(people) }), { clock: ports.clock, removesAtOnce: true });
  const states = createStateIndex(consentCache, serde, (record, partition, error) => {
    logger.error({ partition, offset: record.offset, reason: error.message }, 'a state of consent is not readable: its identifier is closed');
  });
  const links = createLinkIndex(identityCache, keepsRegions ? (value) => regionValue(serde, value) : undefined);
  const records = keepsSources ? 'link-records' : 'link-values';
  // What was read without sources has none: it is read again.
  if (keepsSources) rmSync(join(stateDir, 'link-values'), { recursive: true, force: true });
  const valueCache = keepsValues ? open({ path: join(stateDir, records), onDiscard: onDiscard(records) }) : undefined;
  const values = valueCache === undefined ? undefined : createLinkValues(valueCache, identityCache, (value) => linkValue(serde, value), keepsSources ? (value) => linkSource(serde, value) : undefined);
  const ages = keepsAges ? createLinkAges() : undefined;
  let broken = false;
  let stopping = false;
  const fail = (error: Error) => {
    if (!broken) onError(error);
    broken = true;
  };
  let waits = false;
  const told = (error: unknown): void => {
    if (!waits) logger.warn({ err: error }, 'the tables of consent and identity wait for the registry');
    waits = true;
  };
  /** Schemas of other writers, before the batch is decoded: a registry that is away is waited for. What nothing can read is left to the index. */
  function prepare({ records }: RecordBatch, decoded: (key: Buffer | null) => boolean = () => true): Promise<void> | undefined {
    let lookups: Promise<void>[] | undefined;
    for (const { key, value } of records) {
      if (!decoded(key) || !isReadable(value) || serde.known(value)) continue;
      (lookups ??= []).push(patiently(ports.clock, () => stopping, () => serde.prepare(value), told).catch((error: { code?: string }) => { if (error.code !== 'schema-unknown') throw error; }));
    }
    return lookups === undefined ? undefined : Promise.all(lookups).then(() => { waits = false; });
  }
  /** What stands with the links before they count, so that none is there without; at once, where the links are written late. */
  function putLinks(batch: RecordBatch): readonly Put[] {
    values?.put(batch);
    ages?.note(batch.partition, batch.nextOffset, batch.records, (a, b) => links.links(a).includes(b));
    return links.puts(batch);
  }
  const consent = createTopicTable({ reader, admin, topic: topics.consent, table: consentCache, puts: states.puts, prepare: (batch) => prepare(batch), onError: fail });
  const identity = createTopicTable({ reader: linkReader, admin, topic: topics.identity, table: identityCache, puts: putLinks, ...(keepsSources ? { prepare: (batch: RecordBatch) => prepare(batch) } : keepsRegions ? { prepare: (batch: RecordBatch) => prepare(batch, saysRegion) } : {}), onError: fail });
  const caughtUp = () => !broken && consent.caughtUp() && identity.caughtUp();
  const refuse = (reason: string): ConsentAnswer => ({ ok: false, reason, seen: [] });
  const { linked } = links;
  const check: ConsentTables['check'] = (ids, purpose, channel, topic, legalBasis, now, routes) => (caughtUp() ? checkUse(ids, purpose, channel, topic, legalBasis, states.states, now, routes) : refuse('table-not-ready'));
  const waiting = new Set<() => void>();
  const advanced = () => { for (const check of waiting) check(); };
  let version = 0;
  // In the tick in which the table changes, before anybody else is told.
  const changed = () => {
    version++;
    advanced();
  };
  consent.onAdvance(changed);
  identity.onAdvance(changed);

  return {
    async start() {
      values?.loading();
      await Promise.all([consent.start(), identity.start()]);
      values?.loaded();
      ages?.begin(Array.from(identity.positions(), (n) => n ?? 0));
    },
    caughtUp,
    consentPositions: () => Array.from(consent.positions(), (n) => n ?? 0),
    identityPositions: () => Array.from(identity.positions(), (n) => n ?? 0),
    identityPosition: (partition) => identity.positions()[partition] ?? 0,
    atLeast: (consentOffsets, identityOffsets) => !broken && consent.atLeast(consentOffsets) && identity.atLeast(identityOffsets),
    async readToEnd(atLeast = new Map()) {
      const [ends, links] = await Promise.all([admin.endOffsets(topics.consent), admin.endOffsets(topics.identity)]);
      const reached = () => consent.atLeast(toList(ends)) && identity.atLeast(toList(links)) && consent.atLeast(toList(atLeast));
      if (reached()) return;
      await new Promise<void>((resolve) => {
        const check = () => {
          if (!reached()) return;
          waiting.delete(check);
          resolve();
        };
        waiting.add(check);
      });
    },
    linksEnd: (ids) => ages?.needed(ids),
    hurryLinks: () => identity.hurry(),
    allows(ids, purpose, channel, topic, legalBasis, now, routes) {
      if (!caughtUp()) return refuse('table-not-ready');
      const all = linked(ids);
      return all === undefined ? refuse('identity-too-wide') : check(all, purpose, channel, topic, legalBasis, now, routes);
    },
    version: () => (caughtUp() ? version : -1),
    linked,
    trusted: (ids, trusts) => trustedWith(ids, links.links, (a, b) => values?.saidBy(a, b, trusts) ?? false),
    regions: links.regions,
    linkValues: (ids) => values?.of(ids, links.links) ?? [],
    check,
    folded: states.folded,
    states: states.states,
    stored: states.stored,
    regressed: states.regressed,
    onAdvance(listener) {
      consent.onAdvance(listener);
      identity.onAdvance(listener);
    },
    async stop() {
      stopping = true;
      await Promise.all([consent.close(), identity.close()]);
      await valueCache?.close();
      await Promise.all([reader.close(), linkReader.close(), admin.close()]);
    },
  };
}

/** Before anything is decoded: most of what comes are links. */
const at = '@'.charCodeAt(0);
const saysRegion = (key: Buffer | null): boolean => key !== null && key[0] === at && regionOwner(key.toString()) !== undefined;

function toList(offsets: ReadonlyMap<number, number>): number[] {
  const list: number[] = [];
  for (const [partition, offset] of offsets) list[partition] = offset;
  return list;
}
