import type { Json, JsonObject } from '@weir/adapter';
import type { Reason } from '@weir/pipeline';
import type { DirectMapping, DirectOptions, MayGive } from './direct/compile.ts';

export interface MappingMeta {
  readonly eventId: string;
  readonly source: string;
  /** ms since the epoch. */
  readonly acceptedAt: number;
}

export interface MappedOutput {
  /** Name of the output in the mapping. */
  readonly name: string;
  /** Full record name. */
  readonly recordType: string;
  readonly outputId: string;
  /** Ready for the Avro type of recordType. */
  readonly record: Record<string, unknown>;
}

export type MappingResult =
  | { readonly kind: 'mapped'; readonly outputs: readonly MappedOutput[] }
  | { readonly kind: 'dropped'; readonly reason: string }
  /** `outputs`: what was made all the same, without the fields of the reasons; nothing may be written of it. */
  | { readonly kind: 'failed'; readonly reasons: readonly Reason[]; readonly outputs?: readonly MappedOutput[] };

/** A pure function of (item, envelope, meta): the same input gives the same records, for ever (I5). */
export interface CompiledMapping {
  readonly name: string;
  readonly file: string;
  /** Names of the canonical records that it can give. */
  readonly records: ReadonlySet<string>;
  /** Whether an item may give a record of this type, with scratch of its own; undefined: every item may. */
  mayGive(record: string): MayGive | undefined;
  apply(item: Json, envelope: JsonObject | undefined, meta: MappingMeta): MappingResult;
  /** The same over the bytes of items, with scratch of its own; undefined when this mapping needs JSON values. */
  direct(options: DirectOptions): DirectMapping | undefined;
}
