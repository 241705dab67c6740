/** What the workspace asks for, read from the files of its releases: for which destinations a record must be decided. */
import { compileCel } from '@weir/cel';
import { parseYaml } from '@weir/yaml';

/** `<destination>|<operation>` */
export interface Wanted {
  /** By every release: each of them gets a decision. */
  readonly must: readonly string[];
  /** By some release: nothing else may get a delivery. */
  readonly may: readonly string[];
}

interface Route {
  readonly on: string;
  readonly to: string;
  matches(record: Readonly<Record<string, unknown>>, source: string): boolean;
}

export interface Routes {
  /** Adds a release by its files. Throws when a condition is none. */
  add(files: ReadonlyArray<{ readonly path: string; readonly content: string }>): void;
  /** For a canonical record, by its name without namespace. A condition that fails is one that holds: such a delivery is denied, or sent where it restricts. */
  wanted(name: string, record: Readonly<Record<string, unknown>>, source: string): Wanted;
}

function compile(file: string, when: string): Route['matches'] {
  const compiled = compileCel(when, { file, line: 0, variables: { record: 'map', source: 'string' }, result: 'bool' });
  if ('problems' in compiled) throw new Error(`${file}: ${when}: ${compiled.problems.map((p) => p.message).join('; ')}`);
  return (record, source) => {
    const result = compiled.cel.evaluate({ record, source });
    return !result.ok || result.value === true;
  };
}

export function createRoutes(): Routes {
  const releases: Route[][] = [];
  return {
    add(files) {
      releases.push(files.flatMap((file) => {
        const destination = /^destinations\/(.*)\.ya?ml$/.exec(file.path)?.[1];
        if (destination === undefined) return [];
        const { routes = [] } = parseYaml(file).value as unknown as { readonly routes?: ReadonlyArray<{ readonly on: string; readonly operation: string; readonly when?: string }> };
        return routes.map(({ on, operation, when }): Route => ({ on, to: `${destination}|${operation}`, matches: when === undefined ? () => true : compile(file.path, when) }));
      }));
    },
    wanted(name, record, source) {
      const asked = releases.map((routes) => new Set(routes.filter((r) => r.on === name && r.matches(record, source)).map((r) => r.to)));
      const may = [...new Set(asked.flatMap((of) => [...of]))];
      return { may, must: may.filter((to) => asked.every((of) => of.has(to))) };
    },
  };
}
