/** JSON Schema (2020-12, as OpenAPI 3.1 takes it) and the TypeScript type of the same thing, said once. */
declare const shape: unique symbol;
declare const absent: unique symbol;
export type JsonSchema = Readonly<Record<string, unknown>>;

/** The schema of a T. It stands in documents and in tests; nothing of it is run when an answer is sent. */
export interface Schema<T> {
  readonly json: JsonSchema;
  /** Under this name it is a shared component of the document. */
  readonly component?: string;
  readonly [shape]?: (of: T) => T;
}
/** Of a field that may be left out. */
export interface Optional<T> extends Schema<T> { readonly [absent]: true }
export type AnySchema = Schema<any>;
export type TypeOf<S> = S extends Schema<infer T> ? T : never;

type Fields = Readonly<Record<string, AnySchema>>;
type OptionalNames<F extends Fields> = { [K in keyof F]: F[K] extends { readonly [absent]: true } ? K : never }[keyof F];
type Flat<T> = { readonly [K in keyof T]: T[K] };
export type ObjectOf<F extends Fields> = Flat<{ readonly [K in Exclude<keyof F, OptionalNames<F>>]: TypeOf<F[K]> } & { readonly [K in OptionalNames<F>]?: TypeOf<F[K]> }>;
/** An object, with the fields that it was made of. */
export interface ObjectSchema<F extends Fields> extends Schema<ObjectOf<F>> { readonly fields: F }

/** Words for a field, and an example where the words alone leave a question. */
interface More<T> { readonly example?: T }
const optionalMark: unique symbol = Symbol('optional');
const exampled = <T>({ example }: More<T>): JsonSchema => (example === undefined ? {} : { examples: [example] });
const of = <T>(json: JsonSchema): Schema<T> => ({ json });

/** A text; `pattern` is a regular expression of ECMA-262. */
export const text = (description: string, more: More<string> & { readonly pattern?: string } = {}): Schema<string> => of({ type: 'string', description, ...(more.pattern === undefined ? {} : { pattern: more.pattern }), ...exampled(more) });
/** ISO 8601, UTC. */
export const instant = (description: string): Schema<string> => of({ type: 'string', format: 'date-time', description });
/** Milliseconds since the epoch. */
export const epochMs = (description: string): Schema<number> => of({ type: 'integer', description: `${description} Milliseconds since the epoch.` });
/** A whole number. */
export const integer = (description: string, more: More<number> = {}): Schema<number> => of({ type: 'integer', description, ...exampled(more) });
/** How many: never below 0. */
export const count = (description: string): Schema<number> => of({ type: 'integer', minimum: 0, description });
/** Any number. */
export const number = (description: string): Schema<number> => of({ type: 'number', description });
/** true or false. */
export const flag = (description: string): Schema<boolean> => of({ type: 'boolean', description });
/** One of these words. */
export const oneOf = <const T extends string>(values: readonly T[], description: string): Schema<T> => of({ type: 'string', enum: values, description });
/** Any JSON: what a vendor, a record or a user's policy says. */
export const anything = (description: string): Schema<unknown> => of({ description });

/** A schema within another: by its name where it has one. Resolved by `inlined` and by the document. */
const nested = (schema: AnySchema): unknown => (schema.component === undefined ? schema.json : schema);

/** Any number of them, in an order that the description tells. */
export const list = <T>(items: Schema<T>, description: string): Schema<readonly T[]> => of({ type: 'array', items: nested(items), description });
/** By names that are not known before. */
export const map = <T>(values: Schema<T>, description: string): Schema<Readonly<Record<string, T>>> => of({ type: 'object', additionalProperties: nested(values), description });
/** As one of these says. */
export const anyOf = <const S extends readonly AnySchema[]>(description: string, ...schemas: S): Schema<TypeOf<S[number]>> => of({ anyOf: schemas.map(nested), description });

/** These fields; each must be there unless it is `optional`. Clients take more than these. */
export function object<const F extends Fields>(description: string, fields: F): ObjectSchema<F> {
  const required = Object.keys(fields).filter((name) => !(optionalMark in fields[name]!));
  return { fields, json: { type: 'object', description, ...(required.length === 0 ? {} : { required }), properties: Object.fromEntries(Object.entries(fields).map(([name, schema]) => [name, nested(schema)])) } };
}

/** The same, or null. */
export function nullable<T>(schema: Schema<T>): Schema<T | null> {
  const { json, component } = schema;
  if (component !== undefined || typeof json['type'] !== 'string') return of({ anyOf: [nested(schema), { type: 'null' }] });
  return of({ ...json, type: [json['type'], 'null'], ...(json['enum'] === undefined ? {} : { enum: [...json['enum'] as unknown[], null] }) });
}

/** Of a field: it may be left out. */
export const optional = <T>(schema: Schema<T>): Optional<T> => ({ ...schema, [optionalMark]: true }) as unknown as Optional<T>;

/** A shared component of the document. */
export const named = <S extends AnySchema>(component: string, schema: S): S => ({ ...schema, component });

/** Plain JSON, every named schema in its place given to `place`. */
export function plain(schema: unknown, place: (schema: Schema<unknown> & { readonly component: string }) => unknown): unknown {
  if (Array.isArray(schema)) return schema.map((one) => plain(one, place));
  if (typeof schema !== 'object' || schema === null) return schema;
  if ('json' in schema && 'component' in schema) return place(schema as Schema<unknown> & { readonly component: string });
  return Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, plain(value, place)]));
}

/** The schema with all that it names in its place. */
export const inlined = (schema: AnySchema): JsonSchema => plain(schema.json, (inner) => inlined(inner)) as JsonSchema;
