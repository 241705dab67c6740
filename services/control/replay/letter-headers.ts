import type { Headers, Packer } from '@weir/log';

/** Of one record: more are appended one by one. */
const maxPacked = 48;

/** Goes over encoded headers without making them; each `next` is at the following one. */
class Walk {
  bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  #left = 0;
  from = 0;
  nameFrom = 0;
  nameTo = 0;
  valueFrom = 0;
  to = 0;

  start(bytes: Buffer): void {
    this.bytes = bytes;
    this.#at = this.#left = 0;
  }
  #long(): number {
    const { bytes } = this;
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[this.#at++]!;
      value += (byte & 127) * scale;
      if (byte < 128) return value % 2 === 1 ? -(value + 1) / 2 : value / 2;
    }
  }
  next(): boolean {
    if (this.#left === 0) {
      this.#left = this.#long();
      if (this.#left === 0) return false;
      // A block with its size before it.
      if (this.#left < 0) {
        this.#left = -this.#left;
        this.#long();
      }
    }
    this.#left--;
    this.from = this.#at;
    const name = this.#long();
    this.nameFrom = this.#at;
    this.nameTo = this.#at += name;
    const value = this.#long();
    this.valueFrom = this.#at;
    this.to = this.#at += value;
    return true;
  }
  /** `name` is ASCII. */
  named(name: string): boolean {
    const { bytes, nameFrom } = this;
    if (this.nameTo - nameFrom !== name.length) return false;
    // Names of Weir begin alike.
    for (let i = name.length - 1; i >= 0; i--) if (bytes[nameFrom + i] !== name.charCodeAt(i)) return false;
    return true;
  }
  namedOneOf(names: readonly string[]): boolean {
    for (let i = 0; i < names.length; i++) if (this.named(names[i]!)) return true;
    return false;
  }
}

/** One for all: nothing else runs while it goes. */
const walk = new Walk();

/**
 * The headers of a dead letter where they stand in its value: an Avro array of a name and bytes, which is how Kafka writes
 * headers, too (a length in zigzag and the bytes, both times). The bounds of the value were checked.
 */
export class LetterHeaders {
  readonly #bytes: Buffer;
  #made: Headers | undefined = undefined;

  /** @param bytes the field `headers` of weir.internal.DeadLetter as it is encoded */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }
  /** Made when they are asked for. */
  get headers(): Headers {
    return this.#made ??= this.#make();
  }
  #make(): Headers {
    const headers: (readonly [string, Buffer])[] = [];
    const bytes = this.#bytes;
    for (walk.start(bytes); walk.next();) headers.push([bytes.toString('utf8', walk.nameFrom, walk.nameTo), bytes.subarray(walk.valueFrom, walk.to)]);
    return headers;
  }
  has(name: string): boolean {
    for (walk.start(this.#bytes); walk.next();) if (walk.named(name)) return true;
    return false;
  }
  /** Writes those that have none of the names, neighbours in one copy. False: they are too many to be packed, and the record that was begun is none. */
  pack(packer: Pick<Packer, 'headers'>, without: readonly string[]): boolean {
    const bytes = this.#bytes;
    let count = 0;
    let from = 0;
    let to = 0;
    let run = 0;
    for (walk.start(bytes); walk.next();) {
      if (walk.namedOneOf(without)) continue;
      if (walk.from !== to) {
        if (run > 0) packer.headers(bytes, from, to, run);
        from = walk.from;
        run = 0;
      }
      to = walk.to;
      run++;
      count++;
    }
    if (run > 0) packer.headers(bytes, from, to, run);
    return count <= maxPacked;
  }
}
