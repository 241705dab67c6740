import type { LogRecord, OutRecord } from '@weir/log';
import { H } from '@weir/pipeline';
import { everyPurpose } from '@weir/policy';
import { linksOf } from '@weir/release';
import { identifiersSealer } from '@weir/seal';
import { textOf, type PolicyPorts } from './ports.ts';

/** A change that came by the consent API, on the partition of its first identifier. */
export interface ApiChange {
  readonly record: LogRecord;
  readonly partition: number;
  readonly purpose: string;
}

/**
 * What follows from a change that the consent API has written, so that one record on the log decides all of it: the change
 * of its other identifiers and their links, which the API writes too and may die before; then the canonical record, by
 * which destinations are told, behind all of these. Repeating it does nothing: the fold takes an id once, and deliveries
 * have their keys. One for every purpose goes to no destination: the change of each purpose beside it does.
 */
export function createRelay(ports: Pick<PolicyPorts, 'appender'> & { readonly context: Pick<PolicyPorts['context'], 'topics' | 'serde' | 'keys' | 'releases'> }): (changes: readonly ApiChange[]) => Promise<void> {
  const { appender } = ports;
  const { topics, serde, keys, releases } = ports.context;
  const sealer = keys === undefined ? undefined : identifiersSealer(serde, keys);

  return async (changes) => {
    const copies: OutRecord[] = [];
    const links: OutRecord[] = [];
    for (const { record } of changes) {
      const [, ...others] = textOf(record, H.ids).split(',');
      const sealed = others.length > 0 && releases.current().linkedIdentifiers === true ? sealer?.('weir.canonical.ConsentChange', record.value!) ?? null : null;
      // As old as the first one: a no that came between the two must not find it younger.
      const headers: OutRecord['headers'] = [...record.headers, [H.logged, Buffer.from(String(record.timestamp))]];
      for (const id of others) copies.push({ partition: appender.partitionFor(topics.consentChanges, id), key: Buffer.from(id), value: record.value, headers });
      for (const link of linksOf([record.key!.toString(), ...others])) {
        const [a, b] = link.split('~');
        const key = Buffer.from(link);
        links.push({ partition: appender.partitionFor(topics.identity, key), key, value: serde.encode('weir.internal.IdentityLink', { a, b, source: textOf(record, H.source), at: Number(textOf(record, H.accepted)), sealed }) });
      }
    }
    const [copied, linked] = copies.length === 0 ? [[], []] : await Promise.all([appender.append(topics.consentChanges, copies), appender.append(topics.identity, links)]);
    let next = 0;
    const canonical = changes.flatMap(({ record, partition, purpose }): OutRecord[] => {
      const from = next;
      next += textOf(record, H.ids).split(',').length - 1;
      if (purpose === everyPurpose) return [];
      const own = copies.slice(from, next).map((copy, i) => ({ partition: copy.partition, offset: copied[from + i]! }));
      const headers: OutRecord['headers'] = [...record.headers, [H.afterConsent, Buffer.from(positionsText([{ partition, offset: record.offset }, ...own]))]];
      const after = positionsText(links.slice(from, next).map((link, i) => ({ partition: link.partition, offset: linked[from + i]! })));
      return [{ partition: appender.partitionFor(topics.canonical, record.key!), key: record.key, value: record.value, headers: after === '' ? headers : [...headers, [H.afterIdentity, Buffer.from(after)]] }];
    });
    if (canonical.length > 0) await appender.append(topics.canonical, canonical);
  };
}

/** As a record names what it comes after: the last offset of each partition. */
function positionsText(list: ReadonlyArray<{ readonly partition: number; readonly offset: number }>): string {
  const last = new Map<number, number>();
  for (const { partition, offset } of list) last.set(partition, Math.max(offset, last.get(partition) ?? 0));
  return [...last].map(([partition, offset]) => `${partition}:${offset}`).join(',');
}
