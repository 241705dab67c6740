import { WeirError } from '@weir/errors';

/**
 * Over how many partitions the keys of a topic are hashed: for one process, all its appenders together. Partitions that are
 * added later move no key (docs/decisions/0020): a key whose records stand on two partitions has no order, and a state on each.
 */
export interface PartitionCounts {
  /** The count that was kept for the topic, else the first with which it was asked. Throws topic-repartitioned when the brokers (`actual`) have fewer. */
  of(topic: string, actual: number): number;
  /** What the topic was made with, as everybody keeps it: stands over what was found here. */
  keep(topic: string, partitions: number): void;
  /** Undefined = nobody has kept it yet. */
  kept(topic: string): number | undefined;
}

/** @param grown told once of a topic that has more partitions than its keys are hashed over, and again when it has others */
export function createPartitionCounts(grown: (topic: string, hashed: number, actual: number) => void = () => undefined): PartitionCounts {
  const hashed = new Map<string, number>();
  const kept = new Map<string, number>();
  const told = new Map<string, number>();

  function other(topic: string, known: number, actual: number): number {
    if (actual < known) throw new WeirError('topic-repartitioned', `${topic} has ${actual} partitions, its keys are hashed over ${known}: it was made again with fewer; delete it and make it with ${known} (infra/topics.yaml, weir topics apply), then replay what was on it`);
    if (told.get(topic) !== actual) grown(topic, known, actual);
    told.set(topic, actual);
    return known;
  }

  return {
    of(topic, actual) {
      const known = hashed.get(topic);
      if (known === actual) return actual;
      if (known !== undefined) return other(topic, known, actual);
      hashed.set(topic, actual);
      return actual;
    },
    keep(topic, partitions) {
      kept.set(topic, partitions);
      hashed.set(topic, partitions);
    },
    kept: (topic) => kept.get(topic),
  };
}
