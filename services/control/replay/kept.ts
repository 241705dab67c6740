import type { LogRecord, Reader } from '@weir/log';
import { linkedFrom, linkedOperation } from '@weir/pipeline';
import type { Store } from '../store.ts';
import type { DecidedDelivery } from './today.ts';

export interface KeptPorts {
  readonly store: Pick<Store, 'stages' | 'canonicalPlaces'>;
  readonly reader: Pick<Reader, 'readOne'>;
  /** weir.canonical */
  readonly topic: string;
}

/** Of the canonical records of one output. */
const maxCopies = 32;

/** What the index knows of an output: where its canonical records are, and what was decided of it. */
export function createKept({ store, reader, topic }: KeptPorts) {
  return {
    /** By the places that the index has of the output, the last of them (each replay puts a copy there); what retention took is left out. */
    async canonicalOf(eventId: string, outputId: string): Promise<LogRecord[]> {
      const found = await Promise.all(store.canonicalPlaces(eventId, outputId).slice(-maxCopies).map(({ partition, offset }) => reader.readOne(topic, partition, offset)));
      return found.filter((record) => record !== undefined && record.value !== null) as LogRecord[];
    },
    /** Of the same release it decided the same: a stage that reads a record twice decides twice, and no dispatcher takes the second. */
    decidedLater({ eventId, outputId, destination, operation, decidedAt, release }: DecidedDelivery): boolean {
      const linked = linkedFrom(outputId);
      const [output, named] = linked === undefined ? [outputId, operation] : [linked.output, linkedOperation(operation, linked.id)];
      return store.stages(eventId).some((s) => s.stage === 'decided' && s['effect'] === 'allow' && s.at > decidedAt && s['release'] !== release && s['outputId'] === output && s['destination'] === destination && s['operation'] === named);
    },
  };
}
