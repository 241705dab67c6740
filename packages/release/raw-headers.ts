import { HeaderWalk, RecordBody, type LogRecord } from '@weir/log';
import { H } from '@weir/pipeline';

/** The headers of a raw record that the stage looks at. Text is ASCII. */
export interface RawHeaders {
  readonly eventId: string;
  readonly hash: string;
  readonly acceptedAt: number;
  readonly traceparent: string;
  readonly envelope: Buffer | undefined;
  /** A redrive put it back. */
  readonly redriven: boolean;
  /** Where `weir-event` to `traceparent` stand in the bytes of the record, when they are its first five, in this order. */
  readonly common: { readonly from: number; readonly to: number } | undefined;
}

/** What every canonical record of the item carries on, in this order. */
export const carried = [H.event, H.hash, H.source, H.accepted, H.traceparent] as const;

/** Made while the bytes are walked over; trace context is text only where somebody asks. */
class Walked implements RawHeaders {
  eventId = '';
  hash = '';
  acceptedAt: number;
  envelope: Buffer | undefined = undefined;
  redriven = false;
  common: { readonly from: number; readonly to: number } | undefined = undefined;
  #record: LogRecord;
  constructor(record: LogRecord) {
    this.acceptedAt = record.timestamp;
    this.#record = record;
  }
  get traceparent(): string {
    return textOf(this.#record, H.traceparent);
  }
}

function textOf(record: LogRecord, wanted: string): string {
  return record.headers.findLast(([name]) => name === wanted)?.[1].toString('latin1') ?? '';
}

/** The same with another accept time. */
export function acceptedAs(headers: RawHeaders, acceptedAt: number): RawHeaders {
  const { eventId, hash, traceparent, envelope, redriven } = headers;
  return headers.acceptedAt === acceptedAt ? headers : { eventId, hash, traceparent, envelope, redriven, acceptedAt, common: undefined };
}

/** Clocks of ingest and of the brokers may be so far apart before the brokers' counts, ms. */
const clocksApartMs = 1000;

/** Headers of a replay order, which go on with whatever comes of the record. */
export const replayHeaders: ReadonlySet<string> = new Set([H.intent, H.resend, H.corrects, H.only, H.settled]);

const walk = new HeaderWalk();

/**
 * The headers of a record as they count: what a clock that is ahead calls accepted after the brokers had it (LogAppendTime) was accepted
 * then, or it would pass for newer than an erasure that was ordered after it.
 */
export function rawHeaders(record: LogRecord): RawHeaders {
  const found = walked(record);
  if (found.acceptedAt > record.timestamp + clocksApartMs) {
    found.acceptedAt = record.timestamp;
    found.common = undefined;
  }
  return found;
}

function walked(record: LogRecord): Walked {
  const found = new Walked(record);
  if (!(record instanceof RecordBody)) {
    for (const [name, value] of record.headers) take(found, name, () => value.toString('latin1'), value);
    return found;
  }
  walk.start(record);
  let from = 0;
  let inOrder = 0;
  for (let i = 0; walk.next(); i++) {
    if (i === 0) from = walk.from;
    const expected = i < carried.length ? carried[i]! : undefined;
    if (expected !== undefined && inOrder === i && walk.named(expected)) {
      inOrder++;
      if (i === 0) found.eventId = walk.text();
      else if (i === 1) found.hash = walk.text();
      else if (i === 3) found.acceptedAt = Number(walk.text());
      if (inOrder === carried.length) found.common = { from, to: walk.to };
      continue;
    }
    // Any other order, and what comes behind.
    for (const name of [H.event, H.hash, H.accepted, H.envelope, H.intent]) if (walk.named(name)) take(found, name, () => walk.text(), name === H.envelope ? walk.value() : undefined);
    // The last one of a name counts: then these bytes are not what goes on.
    if (found.common !== undefined && carried.some((name) => walk.named(name))) found.common = undefined;
  }
  return found;
}

function take(found: Walked, name: string, text: () => string, value: Buffer | undefined): void {
  if (name === H.event) found.eventId = text();
  else if (name === H.hash) found.hash = text();
  else if (name === H.accepted) found.acceptedAt = Number(text());
  else if (name === H.envelope) found.envelope = value;
  else if (name === H.intent) found.redriven = true;
}
