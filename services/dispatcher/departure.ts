import type { Clock } from '@weir/service';
import { firstLine, nextLine, type HeadState, type Lane, type Line, type Parked } from './lane.ts';
import type { DestinationPorts } from './ports.ts';
import type { Sleepers } from './sleepers.ts';
import type { Task } from './types.ts';

export interface KeyedPut {
  readonly key: string;
  readonly value: Buffer | null;
}

/** What is left for the next owner is not waited for any longer. */
const leaveMs = 2000;
/** A use that is due later than that is due after the next owner has taken over: its marker says by that alone that it was not called. */
const takenOverMs = 60_000;
/** Markers left for the next owner in one append. */
const maxMarks = 500;

/** Writes what an owner leaves for the next one, part by part, as far as it gets in two seconds. `patience` resolves when these are over. */
export async function writeDeparture(clock: Pick<Clock, 'monotonic' | 'setTimer' | 'clearTimer'>, parts: Iterable<readonly KeyedPut[]>, write: (puts: readonly KeyedPut[], patience: Promise<undefined>) => Promise<void>): Promise<void> {
  const late = Promise.withResolvers<undefined>();
  const until = clock.monotonic() + leaveMs;
  const timer = clock.setTimer(() => { late.resolve(undefined); }, leaveMs);
  try {
    for (const puts of parts) {
      if (puts.length > 0) await write(puts, late.promise);
      if (clock.monotonic() >= until) return;
    }
  } finally {
    clock.clearTimer(timer);
  }
}

/**
 * Markers of what these lanes, and those that sleep, have parked, for the next owner, where nothing is open any more: what is due
 * already, and what restricts, would else be taken for called. Some at a time, `left` with the first.
 */
export function* leftOfParked({ clock, serde }: Pick<DestinationPorts, 'clock' | 'serde'>, sleepers: Pick<Sleepers, 'withRestrictsOrDue' | 'peek'>, lanes: Iterable<Lane>, left: readonly KeyedPut[] = []): Generator<readonly KeyedPut[]> {
  const soon = clock.now() + takenOverMs;
  let found: KeyedPut[] = [...left];
  const spare = (subject: string, parked: Parked, loaded?: Task): void => {
    if (parked.spared || parked.pending > 0 || nextLine(parked) === undefined) return;
    const line = firstLine(parked);
    const known = (of: Line): HeadState | Task => (loaded !== undefined && loaded.parkedOffset === of.offsets[0] ? loaded : of);
    const { attempts, maybeSince } = known(line);
    if (parked.restricts.offsets.length === 0 && (maybeSince > 0 || (line.due >= soon && !parked.saysDue))) return;
    found.push({ key: parked.key, value: serde.encode('weir.internal.LedgerPark', { subject, fromOffset: line.offsets[0]!, due: line.due === 0 ? clock.now() : line.due, reason: line.reason, attempts, maybeSince, since: parked.since, restrictCalledSince: known(parked.restricts).maybeSince }) });
  };
  for (const { subject, parked, queue: [loaded] } of lanes) if (parked !== undefined) spare(subject, parked, loaded);
  yield found;
  found = [];
  for (const subject of sleepers.withRestrictsOrDue(soon)) {
    spare(subject, sleepers.peek(subject)!.parked);
    if (found.length < maxMarks) continue;
    yield found;
    found = [];
  }
  yield found;
}
