import { linkedFrom, linkedOperation, linkedOutput } from '@weir/pipeline';
import { firstOutput } from './erasure-records.ts';
import type { Erasure } from './erasure-receipt.ts';
import type { ErasurePorts } from './erasure.ts';

/** How far the destinations are with an erasure, by what was decided of its event and how that ended. */
export interface ErasureProgress {
  /** The erasure as it stands now, `done` when every destination has ended and no failed one can be tried again; the same object when nothing changed. */
  of(erasure: Erasure): Promise<Erasure>;
  forget(id: string): void;
}

/** The destination has the person still: its dead letter can be sent again, and needs the identifiers. */
const failed: ReadonlySet<string> = new Set(['dead-lettered', 'quarantined']);
/** The keyed identifier by which this part of a destination is told, where it is a further one of its type. */
const furtherIdOf = ({ ids }: Erasure, { operation }: Erasure['destinations'][number]): string | undefined => (operation === null ? undefined : ids.find((id) => operation.endsWith(linkedOperation('', id))));
/** Retention of weir.dlq (infra/topics.yaml): after it there is nothing to send again. */
const letterMs = 30 * 86_400_000;

export function createErasureProgress(ports: Pick<ErasurePorts, 'admin' | 'store' | 'topics' | 'policyGroup' | 'release' | 'logger' | 'now'>): ErasureProgress {
  const { admin, store, topics, policyGroup, release, logger, now } = ports;
  /** Ends of the topics with decisions, taken once policy had passed the record of an erasure. */
  const decidedBy = new Map<string, ReadonlyMap<string, ReadonlyMap<number, number>>>();

  /** Of the partitions that hold something: where all has left by retention there is nothing to index. */
  async function endsOf(topic: string): Promise<ReadonlyMap<number, number>> {
    const [begins, ends] = await Promise.all([admin.beginningOffsets(topic), admin.endOffsets(topic)]);
    return new Map([...ends].filter(([partition, end]) => end > (begins.get(partition) ?? 0)));
  }

  /** Outputs of the Erasures under further values that destinations are told by, as the parts of the receipt name them. */
  function outputsOf(erasure: Erasure): readonly string[] {
    return [...new Set(erasure.destinations.flatMap((part) => furtherIdOf(erasure, part) ?? []))].map((id) => linkedOutput(firstOutput(erasure.eventId!), id));
  }

  /** Whether policy has decided the records of an erasure for every destination, and the index has all that it decided. */
  async function decided(erasure: Erasure): Promise<boolean> {
    const { id, eventId, destinations } = erasure;
    let ends = decidedBy.get(id);
    if (ends === undefined) {
      const place = store.places(eventId!).filter(({ topic }) => topic === topics.canonical).at(-1);
      if (place === undefined) return false;
      const further = outputsOf(erasure).map((output) => store.canonicalPlaces(eventId!, output).at(-1)?.offset ?? Number.NaN);
      if (further.some(Number.isNaN)) return false;
      // All of an event stand on one partition. Committed = every delivery and every denial of it is acknowledged.
      const last = Math.max(place.offset, ...further);
      if (((await admin.committed(policyGroup, topics.canonical)).get(place.partition) ?? 0) <= last) return false;
      const kept = new Set(destinations.filter(({ destination }) => release().destinations.has(destination)).map(({ destination }) => topics.dispatch(destination)));
      ends = new Map(await Promise.all([topics.outcome, ...kept].map(async (topic) => [topic, await endsOf(topic)] as const)));
      decidedBy.set(id, ends);
    }
    return [...ends].every(([topic, of]) => [...of].every(([partition, end]) => store.position(topic, partition) >= end));
  }

  /** How far the destinations are, by what was decided of the event and how it ended; the same object when nothing changed. */
  async function of(erasure: Erasure): Promise<Erasure> {
    const waits = ({ state }: { readonly state: string }): boolean => state === 'pending' || state === 'late';
    const passed = erasure.destinations.some(waits) && await decided(erasure);
    const stages = erasure.eventId === null ? [] : store.stages(erasure.eventId);
    // The record itself could not be decided: that ends every part, and nobody was told.
    const wholes = stages.filter((s) => s.stage === 'outcome' && s['destination'] === null && s['state'] !== 'denied');
    const wholeOf = (further: string | undefined): (typeof wholes)[number] | undefined => wholes.filter(({ outputId }) => typeof outputId !== 'string' || linkedFrom(outputId)?.id === further).at(-1);
    let changed = false;
    const destinations = erasure.destinations.map((part) => {
      const own = stages.filter((s) => s['destination'] === part.destination && s['operation'] === part.operation);
      const outcome = own.filter((s) => s.stage === 'outcome').at(-1) ?? (own.length === 0 ? wholeOf(furtherIdOf(erasure, part)) : undefined);
      const open = passed && own.length === 0 ? 'not-asked' : now() > erasure.deadline! ? 'late' : 'pending';
      const state = part.operation === null ? part.state : outcome !== undefined ? String(outcome['state']) : waits(part) ? open : part.state;
      if (state === part.state) return part;
      changed = true;
      if (state === 'late') logger.error({ erasure: erasure.id, destination: part.destination }, 'a destination has not erased within the deadline');
      if (failed.has(state)) logger.error({ erasure: erasure.id, destination: part.destination, state }, 'a destination has not erased: put right what its dead letter says, and send that again while it is kept');
      return { ...part, state, at: outcome?.at ?? null };
    });
    const open = destinations.some((part) => waits(part) || (failed.has(part.state) && release().destinations.has(part.destination) && now() - (part.at ?? 0) < letterMs));
    return changed || !open ? { ...erasure, destinations, state: open ? 'erased' : 'done' } : erasure;
  }

  return { of, forget: (id) => { decidedBy.delete(id); } };
}
