import { headerBytes, HeaderWalk, RecordBody, type LogRecord, type Packer } from '@weir/log';
import { H } from '@weir/pipeline';

/** Headers that go on with what comes of a record; with a delivery the first of each name, so that they are few whatever a record has. */
export const carried: ReadonlySet<string> = new Set([H.event, H.hash, H.source, H.accepted, H.traceparent, H.output, H.intent, H.resend]);

/** What the stage looks at in the headers of a canonical record, made in one walk over them: the first of each name. Text is ASCII; '' = there is none. */
export class Heads {
  eventId = '';
  outputId = '';
  source = '';
  hash = '';
  /** ms since the epoch; 0 when it is missing or no number. */
  acceptedAt = 0;
  intent = '';
  /** Identifiers, strongest first. */
  ids: readonly string[] = none;
  afterConsent: string | undefined = undefined;
  afterIdentity: string | undefined = undefined;
  only: string | undefined = undefined;
  corrects: string | undefined = undefined;
  settled: string | undefined = undefined;
  approval: string | undefined = undefined;
  /** Carried headers in Kafka's form: pieces of `bytes`, each from, to and how many. */
  readonly #pieces: number[] = [];
  #bytes: Buffer = nothing;
  #taken = 0;

  constructor(record: LogRecord) {
    if (record instanceof RecordBody) this.#walk(record);
    else this.#list(record);
  }

  /** Adds the carried headers to the record that is being put together. */
  carry(packer: Packer): void {
    const pieces = this.#pieces;
    for (let i = 0; i < pieces.length; i += 3) packer.headers(this.#bytes, pieces[i]!, pieces[i + 1]!, pieces[i + 2]!);
  }

  #walk(record: LogRecord & RecordBody): void {
    this.#bytes = record.bytes;
    walk.start(record);
    while (walk.next()) {
      const name = walk.name();
      if (this.#take(name, walk) && carried.has(name)) this.#carry(walk.from, walk.to);
    }
  }

  #list({ headers }: LogRecord): void {
    const firsts = headers.filter(([name, value]) => this.#take(name, { text: () => value.toString('latin1') }) && carried.has(name));
    const pieces = firsts.map(([name, value]) => headerBytes(name, value.toString('utf8')));
    this.#bytes = Buffer.concat(pieces);
    this.#pieces.push(0, this.#bytes.length, pieces.length);
  }

  /** Whether it is one that is looked at or carried, and the first of its name. */
  #take(name: string, value: { text(): string }): boolean {
    const found = takes.get(name);
    if (found === undefined || (this.#taken & found.bit) !== 0) return false;
    this.#taken |= found.bit;
    found.take(this, value.text());
    return true;
  }

  /** Pieces side by side are one. */
  #carry(from: number, to: number): void {
    const pieces = this.#pieces;
    const { length } = pieces;
    if (length > 0 && pieces[length - 2] === from) {
      pieces[length - 2] = to;
      pieces[length - 1]!++;
    } else pieces.push(from, to, 1);
  }
}

const none: readonly string[] = [];
const nothing = Buffer.alloc(0);
const walk = new HeaderWalk();
const decimal = (text: string): number => {
  const value = Number(text);
  return Number.isSafeInteger(value) && value >= 0 ? value : 0;
};

type Take = (heads: Heads, text: string) => void;
/** By name; each with a bit of its own. */
const takes: ReadonlyMap<string, { readonly bit: number; readonly take: Take }> = new Map(([
  [H.event, (heads, text) => { heads.eventId = text; }],
  [H.output, (heads, text) => { heads.outputId = text; }],
  [H.source, (heads, text) => { heads.source = text; }],
  [H.hash, (heads, text) => { heads.hash = text; }],
  [H.accepted, (heads, text) => { heads.acceptedAt = decimal(text); }],
  [H.intent, (heads, text) => { heads.intent = text; }],
  [H.ids, (heads, text) => { if (text !== '') heads.ids = text.split(','); }],
  [H.afterConsent, (heads, text) => { heads.afterConsent = text; }],
  [H.afterIdentity, (heads, text) => { heads.afterIdentity = text; }],
  [H.only, (heads, text) => { heads.only = text; }],
  [H.corrects, (heads, text) => { heads.corrects = text; }],
  [H.settled, (heads, text) => { heads.settled = text; }],
  [H.approval, (heads, text) => { heads.approval = text; }],
  [H.traceparent, () => {}],
  [H.resend, () => {}],
] as const satisfies readonly (readonly [string, Take])[]).map(([name, take], i) => [name, { bit: 1 << i, take }]));
