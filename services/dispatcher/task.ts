import { HeaderWalk, RecordBody, type LogRecord } from '@weir/log';
import { H, ofSubject } from '@weir/pipeline';
import { isSealed, sealedBy } from '@weir/seal';
import type { DestinationPorts } from './ports.ts';
import type { DeliveryValue, Task } from './types.ts';

/** Since when the delivery may have taken effect, ms since the epoch, by calls of an earlier record of it or of this one; 0 = it surely has not. */
export const unsureSince = ({ doubtSince, maybeSince }: Pick<Task, 'doubtSince' | 'maybeSince'>): number => doubtSince || maybeSince;

/** The effect that a delivery has which ends without another call. */
export const effectSoFar = (task: Pick<Task, 'doubtSince' | 'maybeSince'>): 'none' | 'maybe' => (unsureSince(task) > 0 ? 'maybe' : 'none');

/** One for all: nothing else runs while it goes. */
const walk = new HeaderWalk();

/** The first header of this name; undefined = there is none. */
export function headerOf(record: LogRecord, name: string): string | undefined {
  if (record instanceof RecordBody) {
    for (walk.start(record); walk.next();) if (walk.named(name)) return walk.value().toString('utf8');
    return undefined;
  }
  for (const [n, value] of record.headers) if (n === name) return value.toString('utf8');
  return undefined;
}

/**
 * A delivery on its way. The payload is opened once, for all that is done with it. Throws here, where it is set aside with its
 * bytes, when somebody changed what is sealed.
 */
export function taskOf(keys: DestinationPorts['keys'], delivery: DeliveryValue, record: LogRecord, at: Pick<Task, 'offset' | 'parkedOffset' | 'queuedAt' | 'maybeSince'>): Task {
  const sealed = isSealed(delivery.payload) ? sealedBy(delivery.payload) : '';
  const plain = sealed === '' ? undefined : keys?.open(delivery.payload);
  // Of this task alone: it was decoded for it.
  if (plain !== undefined) (delivery as { payload: Buffer }).payload = plain;
  return { delivery, record, sealedBy: sealed, ...at, subject: record.key?.toString('utf8') ?? '', redrive: headerOf(record, H.intent) ?? '', key: '', generation: 0, firstOffset: -1, object: delivery.recordType === 'weir.canonical.Profile' ? ofSubject : '', attempts: 0, doubtSince: 0, notApplied: false, readBacks: 0, path: '', batchLimit: 0, last: undefined, trouble: undefined, ahead: '' };
}
