import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { parseYaml, type YamlValue } from '@weir/yaml';

/** ISO 3166-1 alpha-2, officially assigned (https://www.iso.org/iso-3166-country-codes.html). */
const isoCountries = new Set((
  'AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ '
  + 'DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP '
  + 'KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM '
  + 'PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ '
  + 'UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW').split(' '));

const eu = 'AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK'.split(' ');
/** Groups that need no declaration: the European Union (members since 2020-02-01), the European Economic Area, EFTA. */
const builtIn: Readonly<Record<string, readonly string[]>> = { EU: eu, EEA: [...eu, 'IS', 'LI', 'NO'], EFTA: ['CH', 'IS', 'LI', 'NO'] };

const subdivision = /^([A-Z]{2})-[A-Z0-9]{1,3}$/;

/** True for an assigned ISO 3166-1 alpha-2 code, or the form of ISO 3166-2 with such a country. */
export function isRegionCode(text: string): boolean {
  return isoCountries.has(text) || isoCountries.has(subdivision.exec(text)?.[1] ?? '');
}

/** Countries and subdivisions; a country holds its subdivisions. */
export type RegionSet = ReadonlySet<string>;

export function inSet(set: RegionSet, code: string): boolean {
  return set.has(code) || (code.length > 2 && set.has(code.slice(0, 2)));
}

/** Countries of the subdivisions that a set holds; asked for each record. */
const countriesOf = new WeakMap<RegionSet, ReadonlySet<string>>();

/** Whether the code is that of a country of which the set holds subdivisions only: who is known by it alone may be in one of them. */
export function holdsPart(set: RegionSet, code: string): boolean {
  if (code.length !== 2 || set.has(code)) return false;
  let countries = countriesOf.get(set);
  if (countries === undefined) countriesOf.set(set, countries = new Set([...set].filter((held) => held.length > 2).map((held) => held.slice(0, 2))));
  return countries.has(code);
}

/** ISO 3166 codes and named groups of one workspace. */
export interface Regions {
  readonly groups: ReadonlyMap<string, RegionSet>;
  /** The codes that a code or the name of a group stands for; undefined = neither. */
  resolve(name: string): RegionSet | undefined;
}

function regionsOf(groups: ReadonlyMap<string, RegionSet>): Regions {
  return { groups, resolve: (name) => groups.get(name) ?? (isRegionCode(name) ? new Set([name]) : undefined) };
}

export const standardRegions: Regions = regionsOf(new Map(Object.entries(builtIn).map(([name, codes]) => [name, new Set(codes)])));

const groupName = /^[A-Za-z][A-Za-z0-9_-]{2,40}$/;
const maxGroups = 100;

/** regions.yaml: `regions: { <group>: [codes and groups written above it] }`. A group can not take a name that exists. */
export function compileRegions(file: { readonly path: string; readonly content: string }): Regions {
  const yaml = parseYaml(file);
  const problems: WorkspaceProblem[] = [];
  const add = (at: readonly (string | number)[], message: string, remedy: string): void => { problems.push({ file: file.path, line: yaml.lineOf(at), message, remedy }); };
  const root = yaml.value as { [key: string]: YamlValue } | null;
  const table = root !== null && typeof root === 'object' && !Array.isArray(root) ? root['regions'] : undefined;
  const groups = new Map(standardRegions.groups);
  const regions = regionsOf(groups);
  if (table === null || typeof table !== 'object' || Array.isArray(table)) add([], 'no regions', 'write regions: with a table of groups');
  else {
    const entries = Object.entries(table as { [key: string]: YamlValue });
    if (entries.length > maxGroups) add(['regions'], `more than ${maxGroups} groups`, 'merge some');
    for (const [name, list] of entries.slice(0, maxGroups)) {
      const at = ['regions', name];
      if (!groupName.test(name) || groups.has(name) || isRegionCode(name)) add(at, `group name ${name}`, 'use a new name of 3 to 41 letters, digits, _ and -');
      const codes = new Set<string>();
      for (const [i, item] of (Array.isArray(list) ? list : [null]).entries()) {
        const found = typeof item === 'string' ? regions.resolve(item) : undefined;
        if (found === undefined) add([...at, i], `unknown region ${JSON.stringify(item)}`, 'use ISO 3166 codes such as DE or US-CA, or a group written above');
        else for (const code of found) codes.add(code);
      }
      groups.set(name, codes);
    }
  }
  if (problems.length > 0) throw new WorkspaceError(problems);
  return regions;
}
