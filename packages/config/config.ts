import { WeirError } from '@weir/errors';
import { Secret } from './secret.ts';

/** One option: environment variable, type, default, doc. The only description of it; type, table and check come from here. A `secret` is read as a Secret, which does not print. */
export interface ConfigOption<T = unknown> {
  readonly env: string;
  readonly doc: string;
  readonly type: 'string' | 'integer' | 'boolean' | 'list' | 'enum' | 'secret';
  readonly values?: readonly string[];
  readonly min?: number;
  readonly max?: number;
  readonly default?: T;
  /** True: may be absent (undefined) without a default. */
  readonly optional?: boolean;
}
export type ConfigSchema = Readonly<Record<string, ConfigOption<any>>>;

type ValueOf<O extends ConfigOption> =
  O['type'] extends 'integer' ? number : O['type'] extends 'secret' ? Secret : O['type'] extends 'boolean' ? boolean : O['type'] extends 'list' ? readonly string[]
    : O extends { readonly values: readonly (infer V)[] } ? V : string;
export type ConfigOf<S extends ConfigSchema> = { readonly [K in keyof S]: S[K] extends { optional: true } ? ValueOf<S[K]> | undefined : ValueOf<S[K]> };

/** Keeps literal types of a schema. */
export function defineConfig<const S extends ConfigSchema>(schema: S): S {
  return schema;
}

function parse(name: string, option: ConfigOption, text: string): unknown {
  const bad = (expected: string) => new WeirError('config-invalid', `${name}: expected ${expected}${option.type === 'secret' ? '' : `, got ${JSON.stringify(text.slice(0, 80))}`}`);
  switch (option.type) {
    case 'integer': {
      const n = Number(text);
      if (!/^-?\d+$/.test(text.trim()) || !Number.isSafeInteger(n)) throw bad('a whole number');
      if (option.min !== undefined && n < option.min) throw bad(`a whole number >= ${option.min}`);
      if (option.max !== undefined && n > option.max) throw bad(`a whole number <= ${option.max}`);
      return n;
    }
    case 'boolean':
      if (text === 'true' || text === '1') return true;
      if (text === 'false' || text === '0') return false;
      throw bad('true or false');
    case 'list':
      return Object.freeze(text.split(',').map((s) => s.trim()).filter((s) => s !== ''));
    case 'enum':
      if (!option.values!.includes(text)) throw bad(`one of ${option.values!.join(', ')}`);
      return text;
    case 'secret':
      return new Secret(text);
    default:
      return text;
  }
}

/** Read and check every option at once; all problems are in one error. An empty variable counts as absent. */
export function readConfig<const S extends ConfigSchema>(schema: S, env: Readonly<Record<string, string | undefined>> = process.env): ConfigOf<S> {
  const out: Record<string, unknown> = Object.create(null);
  const problems: string[] = [];
  for (const [field, option] of Object.entries(schema)) {
    const text = env[option.env];
    try {
      if (text === undefined || text === '') {
        if (option.default === undefined && !option.optional) throw new WeirError('config-invalid', `${option.env} is not set: ${option.doc}`);
        out[field] = option.default;
      } else out[field] = parse(option.env, option, text);
    } catch (error) {
      if (!(error instanceof WeirError)) throw error;
      problems.push(error.message);
    }
  }
  if (problems.length > 0) throw new WeirError('config-invalid', problems.join('\n'));
  return Object.freeze(out) as ConfigOf<S>;
}

/** Markdown table of a schema, for READMEs. */
export function configTable(schema: ConfigSchema): string {
  const rows = Object.values(schema).map((o) => {
    const def = o.default === undefined ? (o.optional ? '' : '**required**') : `\`${Array.isArray(o.default) ? o.default.join(',') : String(o.default)}\``;
    return `| \`${o.env}\` | ${o.type === 'enum' ? o.values!.map((v) => `\`${v}\``).join(', ') : o.type} | ${def} | ${o.doc} |`;
  });
  return ['| variable | type | default | meaning |', '|---|---|---|---|', ...rows].join('\n');
}
