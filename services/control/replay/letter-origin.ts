import { hash } from 'node:crypto';
import { fieldReader, type Headers, type Serde } from '@weir/log';
import { H } from '@weir/pipeline';
import { LetterHeaders } from './letter-headers.ts';

/** What no filter of the order asks for is not read. */
export interface Letter {
  readonly id?: string;
  readonly eventId?: string;
  readonly stage?: string;
  readonly reasons?: ReadonlyArray<{ readonly code: string }>;
  readonly source?: string | null;
  readonly destination?: string | null;
  readonly release?: string | null;
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  /** Encoded; decoded of another version of Weir. */
  readonly headers: Buffer | ReadonlyArray<{ readonly name: string; readonly value: Buffer }>;
}

/** The record that a letter is about, as a record that a replay may put back. */
export class LetterOrigin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly encoded: LetterHeaders | undefined;
  readonly destination: string | null;
  unplaced = false;
  readonly #letter: Buffer;
  readonly #decoded: Headers;

  /** @param bytes the letter as it is encoded */
  constructor({ topic, partition, offset, key, value, headers, destination = null }: Letter, bytes: Buffer) {
    this.#letter = bytes;
    this.topic = topic;
    this.partition = partition;
    this.offset = offset;
    this.key = key;
    this.value = value;
    this.destination = destination;
    const encoded = Buffer.isBuffer(headers);
    this.encoded = encoded ? new LetterHeaders(headers) : undefined;
    this.#decoded = encoded ? [] : headers.map((h) => [h.name, h.value] as const);
  }
  get headers(): Headers {
    return this.encoded?.headers ?? this.#decoded;
  }
  get held(): boolean {
    return this.encoded?.has(H.held) ?? this.#decoded.some(([name]) => name === H.held);
  }
  /**
   * Whether the dispatcher of the first vendor wrote it in place of an append to the second's topic, which was gone: it says so,
   * and its id is that of the place on the first's topic (services/dispatcher/ends.ts; a test holds the two together).
   */
  wasNeverOn(serde: Serde, firstTopic: string): boolean {
    const { id, reasons } = readWhy(serde, this.#letter)!;
    if (this.key === null || !reasons.some(({ code }) => code === 'destination-retired')) return false;
    return id === `dlq_${hash('sha256', `dispatcher\0${firstTopic}\0${this.partition}\0${this.offset}`).slice(0, 32)}`;
  }
}

/** Of a few letters only. */
const readWhy = fieldReader<Required<Pick<Letter, 'id' | 'reasons'>>>('weir.internal.DeadLetter', ['id', 'reasons']);
