import { WeirError } from '@weir/errors';
import { readUpTo, type LogRecord } from '@weir/log';
import { H, isPassing, patiently } from '@weir/pipeline';
import type { Loads } from '@weir/service';
import { limitsAt, type CompiledRoute, type CompiledRule, type Decision, type DecisionContext, type Limits } from '@weir/policy';
import type { Release } from '@weir/release';
import { headerOf, textOf, type PolicyPorts } from './ports.ts';

/** Answers that are kept. */
const remembered = 10_000;

/** One slot of a limit rule that a delivery took. */
export interface TakenSlot {
  readonly rule: CompiledRule;
  /** Whom or what the rule counts by. */
  readonly key: string;
  /** When it was decided, ms since the epoch. */
  readonly at: number;
  readonly destination: string;
  readonly operation: string;
  /** Output that was decided, and the order that put it back ('' = none): the same of both decided once more take no other slot. */
  readonly output: string;
  readonly order: string;
}

/** Counts what the limit rules of one partition let through: the same output at the same rule and route once. */
export interface SlotCounter {
  /** This output is decided from now on, under this order ('' = none). Nothing is counted at routes that are left out of it. */
  begin(output: string, order: string, isLeftOut: ((route: CompiledRoute) => boolean) | undefined): void;
  readonly take: DecisionContext['take'];
  readonly has: DecisionContext['take'];
  /** Nothing of the output goes there after all: the slots that it took for the route are free again. */
  stopped(route: CompiledRoute): void;
}

/** Text of a header of a delivery (H.limits): when it was decided, which operation, which limit rules counted it. */
export function limitText(decision: Extract<Decision, { effect: 'allow' }>, now: number): string | undefined {
  return decision.limits === undefined ? undefined : `${now};${decision.route.operation};${decision.limits.join(',')}`;
}

/**
 * The slots that deliveries have taken in windows that are still open, per partition of weir.canonical: read from the
 * deliveries themselves, so that neither a crash nor a rebalance forgets what was let through. Reads nothing where no
 * limit rule is at a destination; else back to the beginning of its longest window, which takes as long as that is to read.
 * Rejects with log-assignment-stale as soon as `gone` says that the assignment has ended.
 */
export async function readTaken(ports: PolicyPorts, release: Release, partitions: ReadonlySet<number>, gone: () => boolean = () => false, loads?: Loads): Promise<Map<number, TakenSlot[]>> {
  const { context: { topics, clock, log }, admin, appender } = ports;
  const found = new Map<number, TakenSlot[]>([...partitions].map((partition) => [partition, []]));
  const limited = [...release.destinations.keys()].map((destination) => ({ destination, rules: new Map(limitsAt(release.policy, destination).map((rule) => [rule.name, rule])) })).filter(({ rules }) => rules.size > 0);
  if (limited.length === 0) return found;
  const canonical = await appender.partitions(topics.canonical);
  const reader = await log.reader();
  try {
    for (const { destination, rules } of limited) {
      const topic = topics.dispatch(destination);
      const now = clock.now();
      const since = Math.min(...[...rules.values()].map(({ limit }) => Math.floor(now / limit!.perMs) * limit!.perMs));
      const same = await appender.partitions(topic) === canonical;
      const [from, ends] = await Promise.all([admin.offsetsAt(topic, since), admin.endOffsets(topic)]);
      // What was decided once more, after a crash, is the same slot; so is a delivery that was put back, whose copy carries the same header under another order.
      const met = new Set<string>();
      for (const [partition, start] of from) {
        if (same && !partitions.has(partition)) continue;
        const end = ends.get(partition) ?? start;
        const load = loads?.begin(topic, partition);
        if (end > start) load?.at(0, end - start);
        await readUpTo(reader, topic, partition, start, end, (batch) => {
          if (gone()) throw new WeirError('log-assignment-stale', 'the partitions are another one\'s');
          load?.at(batch.nextOffset - start, end - start);
          for (const record of batch.records) for (const slot of slotsOf(record, destination, rules)) {
            const home = found.get(appender.partitionFor(topics.canonical, record.key!));
            const id = `${slot.rule.name}/${slot.operation}/${slot.output}`;
            const [decided, copied] = [`${id}/order ${slot.order}`, `${id}/at ${slot.at}`];
            if (home === undefined) continue;
            if (!met.has(decided) && !met.has(copied)) home.push(slot);
            met.add(decided).add(copied);
          }
        }, { gone }).finally(() => load?.end());
        if (gone()) throw new WeirError('log-assignment-stale', 'the partitions are another one\'s');
      }
    }
  } finally {
    await reader.close();
  }
  return found;
}

/** As `readTaken` under the running release, however long brokers are away; undefined = the assignment has ended. */
export async function takenBefore(ports: PolicyPorts, partitions: ReadonlySet<number>, gone: () => boolean, loads: Loads): Promise<Map<number, TakenSlot[]> | undefined> {
  const { clock, logger, releases, topics } = ports.context;
  const asking = [...partitions].map((partition) => loads.begin(topics.canonical, partition));
  let told = false;
  const waits = (error: unknown): void => {
    if (!told) logger.warn({ err: error, partitions: [...partitions] }, 'partitions wait for brokers: what limit rules have counted cannot be read');
    told = true;
  };
  try {
    const taken = await patiently(clock, gone, () => readTaken(ports, releases.current(), partitions, gone, loads), waits);
    return gone() ? undefined : taken;
  } catch (error) {
    if (gone() && isPassing(error)) return undefined;
    throw error;
  } finally {
    for (const load of asking) load.end();
  }
}

function slotsOf(record: LogRecord, destination: string, rules: ReadonlyMap<string, CompiledRule>): TakenSlot[] {
  const text = headerOf(record.headers, H.limits)?.toString();
  const [at, operation, names] = text?.split(';', 3) ?? [];
  if (names === undefined || record.key === null || !/^\d{1,15}$/.test(at!)) return [];
  const subject = record.key.toString();
  return names.split(',').flatMap((name): TakenSlot[] => {
    const rule = rules.get(name);
    return rule === undefined ? [] : [{ rule, key: rule.limit!.by === 'subject' ? subject : destination, at: Number(at), destination, operation: operation!, output: textOf(record, H.output), order: textOf(record, H.intent) }];
  });
}

const idOf = (rule: CompiledRule, { destination, operation }: Pick<CompiledRoute, 'destination' | 'operation'>, output: string, order: string): string => `${rule.name}/${destination}/${operation}/${output}/${order}`;

/** Duplicates and repeats get the first answer and are not counted again. `taken` is what was counted before. @param now ms since the epoch */
export function countOnce(limits: Limits, taken: readonly TakenSlot[], now: number): SlotCounter {
  const answers = new Map<string, boolean>();
  let output = '';
  let order = '';
  let isLeftOut: ((route: CompiledRoute) => boolean) | undefined;
  /** Slots that what is decided now has taken. */
  let own: { readonly id: string; readonly rule: CompiledRule; readonly key: string; readonly at: number; readonly route: CompiledRoute }[] = [];
  for (const { rule, key, at } of taken) limits.restore(rule, key, at, now);
  // What was decided and not committed is decided once more: it has its slot, and is the newest, whatever the destination.
  for (const slot of taken.toSorted((x, y) => x.at - y.at).slice(-remembered)) answers.set(idOf(slot.rule, slot, slot.output, slot.order), true);

  function answered(id: string, answer: boolean): boolean {
    if (answers.size >= remembered) answers.delete(answers.keys().next().value!);
    answers.set(id, answer);
    return answer;
  }

  return {
    begin(of, under, leavesOut) {
      output = of;
      order = under;
      isLeftOut = leavesOut;
      if (own.length > 0) own = [];
    },
    take(rule, key, now, route) {
      if (isLeftOut?.(route) === true) return true;
      const id = idOf(rule, route, output, order);
      const known = answers.get(id);
      if (known !== undefined) return known;
      const answer = limits.take(rule, key, now);
      if (answer) own.push({ id, rule, key, at: now, route });
      return answered(id, answer);
    },
    has(rule, key, now, route) {
      if (isLeftOut?.(route) === true) return true;
      const id = idOf(rule, route, output, order);
      // A no is the answer: nobody takes it.
      return answers.get(id) ?? (limits.has(rule, key, now) || answered(id, false));
    },
    stopped(route) {
      for (const { id, rule, key, at, route: of } of own) if (of === route && answers.delete(id)) limits.giveBack(rule, key, at);
    },
  };
}
