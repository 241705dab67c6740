/** The two hot requests with our own record codec; everything else uses the library's encoders. */
import { createAPI, fetchV12, produceV11, Writer, type Reader } from '@platformatic/kafka';

export interface ProduceTopic {
  readonly topic: string;
  readonly partitions: ReadonlyArray<{ readonly partition: number; readonly batch: Buffer }>;
}

function produceRequest(timeoutMs: number, topics: readonly ProduceTopic[]): Writer {
  return Writer.create()
    .appendString(null)
    .appendInt16(-1)
    .appendInt32(timeoutMs)
    .appendArray(topics as ProduceTopic[], (w, t) => {
      w.appendString(t.topic).appendArray(t.partitions as ProduceTopic['partitions'][number][], (w2, p) => {
        w2.appendInt32(p.partition).appendUnsignedVarInt(p.batch.length + 1).append(p.batch);
      });
    })
    .appendTaggedFields();
}

export const produceApi = createAPI(0, 11, produceRequest, produceV11.parseResponse);

export interface FetchedPartition {
  readonly topic: string;
  readonly partition: number;
  readonly errorCode: number;
  readonly highWatermark: number;
  readonly logStartOffset: number;
  /** Record batches as they came; empty when there are none. */
  readonly bytes: Buffer;
}
export interface Fetched {
  readonly errorCode: number;
  readonly partitions: readonly FetchedPartition[];
}

const nothing: Buffer = Buffer.alloc(0);

function fetchResponse(_correlationId: number, _key: number, _version: number, reader: Reader): Fetched {
  reader.readInt32();
  const errorCode = reader.readInt16();
  reader.readInt32();
  const partitions: FetchedPartition[] = [];
  reader.readArray((r) => {
    const topic = r.readString();
    r.readArray((r2) => {
      const partition = r2.readInt32();
      const code = r2.readInt16();
      const highWatermark = Number(r2.readInt64());
      r2.readInt64();
      const logStartOffset = Number(r2.readInt64());
      r2.readNullableArray((r3) => [r3.readInt64(), r3.readInt64()]);
      r2.readInt32();
      let size = r2.readUnsignedVarInt();
      let bytes = nothing;
      if (size > 1) {
        size--;
        bytes = r2.buffer.subarray(r2.position, r2.position + size).buffer;
        r2.skip(size);
      }
      partitions.push({ topic, partition, errorCode: code, highWatermark, logStartOffset, bytes });
      return undefined;
    });
    return undefined;
  });
  return { errorCode, partitions };
}

export const fetchApi = createAPI(1, 12, fetchV12.createRequest, fetchResponse);
