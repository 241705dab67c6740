import type { AvroField, AvroRecord } from '@weir/schemas';

/** What a canonical field takes. */
export interface FieldKind {
  readonly name: string;
  readonly base: 'string' | 'long' | 'int' | 'double' | 'boolean' | 'map' | 'records';
  readonly nullable: boolean;
  readonly hasDefault: boolean;
  readonly defaultValue: unknown;
  /** Fields of the element record, for `records`. */
  readonly element?: ReadonlyMap<string, FieldKind>;
}

function kindOf(field: AvroField): FieldKind {
  let type = field.type;
  let nullable = false;
  if (Array.isArray(type)) {
    nullable = type.includes('null');
    type = type.find((t) => t !== 'null');
  }
  const base = typeof type === 'string' ? type : (type as { type: string }).type;
  const common = { name: field.name, nullable, hasDefault: 'default' in field, defaultValue: field.default };
  if (base === 'array') {
    const items = (type as { items: AvroRecord }).items;
    return { ...common, base: 'records', element: fieldKinds(items) };
  }
  if (base === 'string' || base === 'long' || base === 'int' || base === 'double' || base === 'boolean' || base === 'map') return { ...common, base };
  throw new Error(`canonical field ${field.name} has a type that mappings do not know: ${base}`);
}

/** Fields of a canonical record in Avro order. */
export function fieldKinds(schema: AvroRecord): ReadonlyMap<string, FieldKind> {
  return new Map(schema.fields.map((field) => [field.name, kindOf(field)]));
}

/** The value as the field takes it; undefined when it does not fit. */
export function fit(kind: FieldKind, value: unknown): unknown {
  switch (kind.base) {
    case 'string':
      return typeof value === 'string' ? value : typeof value === 'number' || typeof value === 'boolean' ? String(value) : undefined;
    case 'long':
    case 'int':
      return typeof value === 'number' && Number.isSafeInteger(value) && (kind.base === 'long' || Math.abs(value) < 2 ** 31) ? value : undefined;
    case 'double':
      return typeof value === 'number' && Number.isFinite(value) ? value : undefined;
    case 'boolean':
      return typeof value === 'boolean' ? value : undefined;
    case 'map':
      return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : undefined;
    case 'records':
      return Array.isArray(value) ? value : undefined;
  }
}

export const kindWords: Record<FieldKind['base'], string> = { string: 'text', long: 'a whole number', int: 'a whole number below 2^31', double: 'a number', boolean: 'true or false', map: 'a table of texts', records: 'a list' };
