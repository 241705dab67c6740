import type { WorkspaceProblem } from '@weir/errors';
import type { CompiledContract } from '@weir/mapping';
import { classWords, compilePurposesFile, compileRegions, dataClass, fieldUses, standardRegions, type ClassPurposes, type FieldTerms, type FieldUse, type Purpose, type Regions } from '@weir/policy';
import type { ReleaseFile } from './types.ts';

/** The words that the files of a workspace share. */
export interface Terms {
  readonly purposes: ReadonlyMap<string, Purpose>;
  readonly classes: ClassPurposes;
  readonly regions: Regions;
}

/** Table tests of policies stand beside them. */
export const isPolicyTest = (path: string): boolean => /^policies\/[^/]+\.test\.ya?ml$/.test(path);

export function compileTerms(files: readonly ReleaseFile[], attempt: <T>(work: () => T) => T | undefined, problems: WorkspaceProblem[]): Terms {
  const purposesFile = files.find((f) => f.path === 'purposes.yaml');
  const regionsFile = files.find((f) => f.path === 'regions.yaml');
  if (purposesFile === undefined) problems.push({ file: 'purposes.yaml', line: 0, message: 'is missing', remedy: 'say for which purposes data is used' });
  const found = purposesFile === undefined ? undefined : attempt(() => compilePurposesFile(purposesFile));
  const regions = regionsFile === undefined ? undefined : attempt(() => compileRegions(regionsFile));
  return { purposes: found?.purposes ?? new Map(), classes: found?.classes, regions: regions ?? standardRegions };
}

const recordPrefix = 'weir.canonical.';
const recordNames = ['Profile', 'Company', 'Event', 'ConsentChange', 'Order', 'CampaignMetric'];

/** Class and purposes of every canonical field: what the general contracts say, over the defaults. */
export function compileFields(contracts: Iterable<readonly CompiledContract[]>, terms: Terms, problems: WorkspaceProblem[]): ReadonlyMap<string, ReadonlyMap<string, FieldUse>> {
  const said = new Map<string, Map<string, FieldTerms>>();
  for (const contract of new Set([...contracts].flat())) {
    for (const [recordType, fields] of contract.terms) {
      const name = recordType.slice(recordPrefix.length);
      const known = said.get(name) ?? new Map<string, FieldTerms>();
      said.set(name, known);
      for (const [field, { classification, tags, purposes, required, line }] of fields) {
        const report = (message: string, remedy: string): void => { problems.push({ file: contract.file, line, message, remedy }); };
        if (classification !== undefined && dataClass([classification]) === undefined) report(`unknown classification ${classification}`, `use one of ${classWords.join(', ')}`);
        for (const purpose of purposes ?? []) if (!terms.purposes.has(purpose)) report(`unknown purpose ${purpose}`, `use one of ${[...terms.purposes.keys()].join(', ')}`);
        const before = known.get(field);
        const words = [before?.class, classification, ...tags].filter((word) => word !== undefined);
        // Two contracts on one field: the stricter class, and purposes that both allow.
        known.set(field, { class: dataClass(words), purposes: both(before?.purposes, purposes), required: required || before?.required === true });
      }
    }
  }
  return new Map(recordNames.map((name) => [name, fieldUses(name, said.get(name) ?? new Map(), terms.classes, terms.purposes.keys())]));
}

function both(a: readonly string[] | undefined, b: readonly string[] | undefined): readonly string[] | undefined {
  return a === undefined || b === undefined ? a ?? b : a.filter((purpose) => b.includes(purpose));
}
