import { anyOf, anything, count, flag, instant, map, named, nullable, object, optional, text, type Clock, type Media } from '@weir/service';
import { stateView } from './consent.ts';
import { cut, leftOutList, type Person, type SubjectRecord, type Subjects } from './subjects.ts';

const chunkChars = 64 * 1024;
/** Who takes nothing for so long is gone: exports are few at once, and others wait for their turn. */
export const exportPatienceMs = 60_000;
export type ExportClock = Pick<Clock, 'setTimer' | 'clearTimer'>;

/** First line of an export that is not of all that is linked. */
const wideNote = { incomplete: 'more than 64 identifiers are linked to this one: only the records under the one given follow' };

const at = instant('When.');
const read = {
  at, acceptedAt: nullable({ json: { type: 'number', description: 'When the event was accepted, milliseconds since the epoch.' } }), eventId: text('Event.'), source: text('Source.'), type: optional(text('Canonical record.')),
  erased: flag('Its key is destroyed, or it is what an erasure tells the destinations, which is shown to nobody.'), broken: optional(flag('Its bytes are none of a record.')),
} as const;
export const exportReply: Media = {
  type: 'application/x-ndjson', description: 'One JSON value a line, while they are read.',
  line: named('ExportLine', anyOf('A line of an export.',
    object('First line of an export that is not of all that is linked.', { incomplete: text('Why.') }),
    object('First line of an export that leaves something out.', { leftOut: leftOutList }),
    object('A canonical record.', { ...read, record: nullable(map(anything('A field.'), 'The record.')) }),
    object('A change of consent, as it was said: kept longer than canonical records, so one may stand as both.', { ...read, change: nullable(map(anything('A field.'), 'The change.')) }),
    object('A state of consent as it is now.', { at: nullable(at), state: stateView }),
    object('A destination that got something of the person.', { at, delivery: object('Deliveries.', { destination: text('Destination.'), delivered: count('How many; `at` is when the last was.'), cut }) }),
    object('What a link keeps in the clear.', { at, link: object('Identifiers.', { userId: optional(nullable(text('User id.'))), email: optional(nullable(text('E-mail address.'))), phone: optional(nullable(text('Phone number.'))) }) }),
    object('Where the person was last said to be.', { at, region: text('ISO 3166 code.') }))),
};

const line = (value: object): string => `${JSON.stringify(value)}\n`;
const iso = (at: number): string => new Date(at).toISOString();

/**
 * All of a person as NDJSON text, while it is read: the reader waits for who takes it, and stops when he has left, or has taken
 * nothing for `exportPatienceMs`: then it ends by an error, in the middle. Held are a chunk, and of the newest events (`cut`) what their
 * deliveries are looked up by.
 */
export async function* exportLines(subjects: Subjects, { ids, onlyGiven, leftOut }: Person, clock: ExportClock): AsyncGenerator<string> {
  let chunk = onlyGiven ? line(wideNote) : leftOut.length > 0 ? line({ leftOut }) : '';
  let left = false;
  let give = Promise.withResolvers<string>();
  let taken = Promise.withResolvers<void>();
  const events = subjects.newestEvents();

  async function tell(kind: 'record' | 'change', { at, value, broken, outputId: _outputId, ...rest }: SubjectRecord): Promise<void> {
    if (left) throw new Error('nobody reads the export any more');
    chunk += line({ at: iso(at), ...rest, erased: value === undefined && !broken, ...(broken ? { broken } : {}), [kind]: value ?? null });
    if (chunk.length < chunkChars) return;
    give.resolve(chunk);
    chunk = '';
    const { promise, reject } = taken;
    const timer = clock.setTimer(() => { reject(new Error(`nobody has taken the export for ${exportPatienceMs / 1000} s`)); }, exportPatienceMs);
    await promise.finally(() => { clock.clearTimer(timer); });
  }

  async function readAll(): Promise<void> {
    await subjects.scan(ids, (record) => {
      events.add(record);
      return tell('record', record);
    });
    await subjects.scanChanges(ids, (change) => tell('change', change));
  }

  const end = readAll().then(() => undefined, (error: unknown) => { if (!left) throw error; });
  // It may end while nobody asks for more.
  end.catch(() => undefined);
  try {
    for (;;) {
      const text = await Promise.race([give.promise, end]);
      if (text === undefined) break;
      yield text;
      const before = taken;
      give = Promise.withResolvers<string>();
      taken = Promise.withResolvers<void>();
      before.resolve();
    }
    for (const state of subjects.states(ids)) chunk += line({ at: state.changedAt || null, state });
    const newest = events.newest();
    for (const { destination, delivered, last } of await subjects.deliveredTo(newest)) chunk += line({ at: last, delivery: { destination, delivered, cut: events.cut() } });
    // Of those that are too many the links are of several people.
    if (!onlyGiven) {
      for (const { at, ...link } of await subjects.linkValues(ids)) chunk += line({ at: iso(at), link });
      for (const { at, region } of subjects.regions(ids)) chunk += line({ at: iso(at), region });
    }
    if (chunk !== '') yield chunk;
  } finally {
    left = true;
    taken.resolve();
    await end;
  }
}
