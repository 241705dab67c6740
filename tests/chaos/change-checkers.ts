/** What was ordered by the control API, over the recorded history. Pure: each gives the lines that say what is broken; none = it held. */
import { decodeLeaf, type AuditLeaf } from '@weir/audit';
import type { History } from './history.ts';
import type { OperatorsLog } from './operators.ts';

/** Each of these writes a change when it is carried out; others may find that there is nothing to change. */
const writes: ReadonlySet<string> = new Set(['destination.pause', 'destination.resume', 'token.issue', 'replay.order']);

/** Every intent has an end, also of a service that was killed; one that was not made changed nothing, and one that was completed did (I9). */
export function changesAudited(history: Pick<History, 'leaves' | 'changes'>): string[] {
  const leaves = new Map(history.leaves.flatMap(({ bytes }): [string, AuditLeaf][] => {
    const leaf = decodeLeaf(bytes);
    return leaf === undefined ? [] : [[leaf.id, leaf]];
  }));
  const ends = Map.groupBy([...leaves.values()].filter(({ kind, of }) => kind === 'end' && of !== null), ({ of }) => of!);
  const made = new Set(history.changes.map(({ leaf }) => leaf));
  return [...leaves.values()].filter(({ kind }) => kind === 'intent').flatMap(({ id, action, actor }) => {
    const results = new Set((ends.get(id) ?? []).map(({ details }) => String(details['result'])));
    const name = `${action} by ${actor} (${id})`;
    return [
      ...(results.size === 0 ? [`${name} has no end in the audit log`] : []),
      ...(results.size > 1 ? [`${name} ended ${[...results].join(' and ')}`] : []),
      ...((results.has('not-made') || results.has('refused')) && made.has(id) ? [`${name} ended ${[...results].join()}, and its change is on weir.control`] : []),
      ...(results.has('completed') && writes.has(action) && !made.has(id) ? [`${name} is told as completed, and no change names it`] : []),
    ];
  });
}

/** What an operator was answered holds (I1): nothing of it is lost, whoever was killed behind the answer. */
export function answersHold(history: Pick<History, 'switches' | 'tokens' | 'orders' | 'erasures'>, log: OperatorsLog): string[] {
  return [
    ...log.odd,
    ...[...log.switches].filter(([name, paused]) => history.switches.get(name) !== paused).map(([name, paused]) => `${name} was ${paused ? 'paused' : 'resumed'} last by what was answered, and its switch says ${history.switches.get(name)}`),
    ...[...log.tokens].filter(([id, revoked]) => !history.tokens.has(id) || (revoked && history.tokens.get(id) !== true)).map(([id, revoked]) => `token ${id} was ${revoked ? 'revoked' : 'issued'} by what was answered, and is ${history.tokens.has(id) ? 'valid' : 'not known'}`),
    ...[...log.replays].filter((id) => !history.orders.has(id)).map((id) => `replay ${id} was answered and is not known`),
    ...log.erasures.filter(({ id }) => !history.erasures.has(id)).map(({ id }) => `erasure ${id} was answered and is not known`),
  ];
}

/** No call to a destination arrives while it is paused (I6). `slackMs`: a call that began before may arrive so late. */
export function pausesHold(history: Pick<History, 'arrivals'>, { pauses }: Pick<OperatorsLog, 'pauses'>, slackMs: number): string[] {
  return pauses.flatMap(({ destination, from, to }) => history.arrivals.filter((a) => a.destination === destination && a.at > from + slackMs && a.at < to).map((a) => `a call to ${destination} under ${a.idempotencyKey} arrived at ${a.at}, while it was paused from ${from} to ${to}`));
}

/** Of who was erased nothing of before the order can be read, and nothing is sent after the acknowledgement (I11). `slackMs`: a call that began before may arrive so late. */
export function erased(history: Pick<History, 'canonical' | 'arrivals' | 'erasures'>, { erasures }: Pick<OperatorsLog, 'erasures'>, slackMs: number): string[] {
  const readable = Map.groupBy(history.canonical.filter((c) => c.userId !== null), (c) => c.userId!);
  const calls = Map.groupBy(history.arrivals, (a) => String(a.body['email']));
  return erasures.flatMap(({ id, userId, email, events }) => {
    const { state, erasedAt } = history.erasures.get(id) ?? { state: 'not known', erasedAt: null };
    if (erasedAt === null) return [`the erasure ${id} of ${userId} is ${state}`];
    return [
      ...(readable.get(userId) ?? []).filter((c) => events.includes(c.event)).map((c) => `${c.type} of ${c.event} of ${userId}, who was erased, can be read`),
      ...(calls.get(email) ?? []).filter((a) => a.at > erasedAt + slackMs).map((a) => `a call for ${email} arrived at ${a.at}, and the erasure was acknowledged at ${erasedAt}`),
    ];
  });
}
