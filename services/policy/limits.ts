import type { LogRecord } from '@weir/log';
import { H } from '@weir/pipeline';
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
  /** Output and order that were decided: the same ones decided once more take no other slot. */
  readonly output: string;
}

/** Text of a header of a delivery (H.limits): when it was decided, which operation, which limit rules counted it. */
export function limitText(decision: Extract<Decision, { effect: 'allow' }>, now: number): string | undefined {
  return decision.limits === undefined ? undefined : `${now};${decision.route.operation};${decision.limits.join(',')}`;
}

/**
 * The slots that deliveries have taken in windows that are still open, per partition of weir.canonical: read from the
 * deliveries themselves, so that neither a crash nor a rebalance forgets what was let through. Reads nothing where no
 * limit rule is at a destination; else back to the beginning of its longest window.
 */
export async function readTaken(ports: PolicyPorts, release: Release, partitions: ReadonlySet<number>): Promise<Map<number, TakenSlot[]>> {
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
      // A delivery that was put back is the same slot: its copy carries the same header.
      const met = new Set<string>();
      for (const [partition, start] of from) {
        if (same && !partitions.has(partition)) continue;
        await reader.read(topic, partition, start, ends.get(partition) ?? start, (batch) => {
          for (const record of batch.records) for (const slot of slotsOf(record, destination, rules)) {
            const home = found.get(appender.partitionFor(topics.canonical, record.key!));
            const id = `${slot.rule.name}/${slot.operation}/${slot.output}/${slot.at}`;
            if (home === undefined || met.has(id)) continue;
            met.add(id);
            home.push(slot);
          }
        });
      }
    }
  } finally {
    await reader.close();
  }
  return found;
}

function slotsOf(record: LogRecord, destination: string, rules: ReadonlyMap<string, CompiledRule>): TakenSlot[] {
  const text = headerOf(record.headers, H.limits)?.toString();
  const [at, operation, names] = text?.split(';', 3) ?? [];
  if (names === undefined || record.key === null || !/^\d{1,15}$/.test(at!)) return [];
  const subject = record.key.toString();
  return names.split(',').flatMap((name): TakenSlot[] => {
    const rule = rules.get(name);
    return rule === undefined ? [] : [{ rule, key: rule.limit!.by === 'subject' ? subject : destination, at: Number(at), destination, operation: operation!, output: `${textOf(record, H.output)}/${textOf(record, H.intent)}` }];
  });
}

/** The same output at the same rule and route asks once: duplicates and repeats get the first answer and are not counted again. `output` is the one that is decided now, `taken` what was counted before. @param now ms since the epoch */
export function countOnce({ take, restore }: Limits, output: () => string, taken: readonly TakenSlot[], now: number): DecisionContext['take'] {
  const answers = new Map<string, boolean>();
  for (const { rule, key, at } of taken) restore(rule, key, at, now);
  // What was decided and not committed is decided once more: it has its slot.
  for (const { rule, destination, operation, output: decided } of taken.slice(-remembered)) answers.set(`${rule.name}/${destination}/${operation}/${decided}`, true);
  return (rule: CompiledRule, key: string, now: number, route: CompiledRoute) => {
    const id = `${rule.name}/${route.destination}/${route.operation}/${output()}`;
    const known = answers.get(id);
    if (known !== undefined) return known;
    const answer = take(rule, key, now);
    if (answers.size >= remembered) answers.delete(answers.keys().next().value!);
    answers.set(id, answer);
    return answer;
  };
}
