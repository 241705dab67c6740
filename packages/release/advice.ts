import type { WorkspaceProblem } from '@weir/errors';
import { planOf } from '@weir/policy';
import { parseYaml } from '@weir/yaml';
import { countedTogether, ratesOf, strictest, type Counted } from './quota.ts';
import type { Release } from './types.ts';

/**
 * What compiles and is probably not meant; nothing is refused for it. A destination that holds people for a purpose that
 * asks for consent, and has no `restrict` route on ConsentChange, is never told that somebody said no: Weir sends no
 * more, but what the vendor sends by itself (its own lists and flows) goes on. And a polled source that names no version of
 * its objects: one that becomes again what it was (yes, no, yes) is taken for a repetition. And one that counts the pages of
 * what changed lately, a list that moves while it is read. And a `region` of the workspace,
 * which looks as if it answered a residency rule: where people are is asked of the record and its source. And a poll that
 * takes the state of its objects for acts of people (`standing`); of a webhook nobody can tell: what it calls a change of a
 * contact may be the click of a person, or the contact as it is. And a header that looks like a credential and stands in
 * the file in the clear: whoever may see a release sees it. And limits of one bucket that contradict each other. And a
 * destination that gets an identifier hashed and is told of a restriction in the clear: it learns what it was not to know, and
 * finds nobody by it.
 */
export function advise(release: Release): WorkspaceProblem[] {
  return [...withoutWord(release), ...withoutVersion(release), ...movingPages(release), ...withoutStanding(release), ...unreadRegion(release), ...openCredentials(release), ...contradictingLimits(release), ...toldInTheClear(release)];
}

function unreadRegion({ files }: Release): WorkspaceProblem[] {
  const head = files.find(({ path }) => path === 'weir.yaml');
  if (head === undefined) return [];
  const { value, lineOf } = parseYaml(head);
  if (value === null || typeof value !== 'object' || Array.isArray(value) || value['region'] === undefined) return [];
  return [{ file: head.path, line: lineOf(['region']), message: 'region of the workspace is read by nothing: no residency rule counts anybody by it', remedy: 'take it out, and write region in sources/<name>.yaml (where its people are) and destinations/<name>.yaml (where it keeps data)' }];
}

function withoutVersion(release: Release): WorkspaceProblem[] {
  return [...release.sources.values()].filter(({ adapter, config }) => adapter.source?.kind === 'poll' && adapter.manifest.source?.config['version'] !== undefined && config['version'] === undefined).map(({ name }) => ({
    file: `sources/${name}.yaml`, line: 0,
    message: `an object of ${name} that becomes again what it was before is taken for a repetition: the change, a withdrawal perhaps, is lost`,
    remedy: 'give version: the path of what changes with each change of an object, e.g. updated_at',
  }));
}

function movingPages({ files, sources }: Release): WorkspaceProblem[] {
  return [...sources.values()].filter(({ adapter, config }) => adapter.source?.kind === 'poll' && config['cursor'] === 'page' && config['since'] !== undefined).map(({ name }) => {
    const file = files.find(({ path }) => path === `sources/${name}.yaml`);
    return {
      file: `sources/${name}.yaml`, line: file === undefined ? 0 : parseYaml(file).lineOf(['config', 'cursor']),
      message: `the pages of ${name} are counted, and with since the list moves while it is read: what changes meanwhile can push others onto a page that was read already, and those changes are lost`,
      remedy: 'use cursor: token, url or link where the API has one of them; else have it sort by what never changes (path: /members?sort=id)',
    };
  });
}

const isTable = (value: unknown): value is { readonly [name: string]: unknown } => value !== null && typeof value === 'object' && !Array.isArray(value);
const says = (field: unknown): unknown => (isTable(field) ? field['const'] : undefined);

/** A poll gives an object with each change of anything in it, and its consent as it stands: a yes of long ago is said again after a no that came elsewhere. One that only ever says no opens nothing. */
function withoutStanding({ files, sources }: Release): WorkspaceProblem[] {
  const polled = new Map([...sources.values()].filter(({ adapter }) => adapter.source?.kind === 'poll').map(({ name, mapping }) => [mapping.file, name]));
  return [...polled].flatMap(([path, source]) => {
    const file = files.find((f) => f.path === path);
    if (file === undefined) return [];
    const { value, lineOf } = parseYaml(file);
    const outputs = isTable(value) && isTable(value['outputs']) ? Object.entries(value['outputs']) : [];
    return outputs.flatMap(([name, output]): WorkspaceProblem[] => {
      const fields = isTable(output) && output['record'] === 'ConsentChange' && isTable(output['fields']) ? output['fields'] : undefined;
      if (fields === undefined || fields['standing'] !== undefined || ['withdrawn', 'denied'].includes(String(says(fields['state'])))) return [];
      return [{
        file: path, line: lineOf(['outputs', name]),
        message: `${source} is polled: it says the consent of a person again with each change of anything else, and an old yes opens what the person closed elsewhere meanwhile`,
        remedy: 'add standing: { const: true } to the fields, or standing: { const: false } where each object is one act of a person',
      }];
    });
  });
}

const credentialHeader = /^(?:authorization|cookie|apikey|(?:.*[-_])?(?:key|token|secret))$/i;

/** Headers of requests in the files of sources and destinations; what a template makes, and a secret by name, is none in the clear. */
function openCredentials({ files }: Release): WorkspaceProblem[] {
  return files.filter(({ path }) => /^(?:sources|destinations)\/[^/]+\.yaml$/.test(path)).flatMap((file) => {
    const { value, lineOf } = parseYaml(file);
    const found: WorkspaceProblem[] = [];
    const look = (part: unknown, at: readonly (string | number)[]): void => {
      if (Array.isArray(part)) part.forEach((child, i) => { look(child, [...at, i]); });
      if (!isTable(part)) return;
      for (const [name, child] of Object.entries(part)) {
        if (at.at(-1) === 'headers' && credentialHeader.test(name) && typeof child === 'string' && child !== '' && !child.includes('{{')) {
          found.push({ file: file.path, line: lineOf([...at, name]), message: `the header ${name} stands in the file in the clear: whoever may see the release sees it`, remedy: 'write { secret: NAME } and weir vault set NAME; take another value, as this one is known' });
        } else look(child, [...at, name]);
      }
    };
    look(value, []);
    return found;
  });
}

/** What counts together at a vendor has one limit: the strictest of those that are stated counts (shareOperationLimits). */
function contradictingLimits({ files, destinations }: Release): WorkspaceProblem[] {
  const place = ({ destination, operation, readBack }: Counted) => {
    const file = files.find(({ path }) => path === `destinations/${destination}.yaml`);
    return { file: `destinations/${destination}.yaml`, line: file === undefined ? 0 : parseYaml(file).lineOf(['config', 'operations', operation, ...(readBack ? ['verify'] : []), 'limit']) };
  };
  const name = ({ destination, operation, readBack }: Counted): string => `${readBack ? 'the read-back of ' : ''}${operation} of ${destination}`;
  const stated = [...destinations.values()].map((d) => ({ ...d, operations: d.adapter.destination?.operations?.(d.config) ?? d.adapter.manifest.destination!.operations }));
  return countedTogether(stated).flatMap(({ account, all }): WorkspaceProblem[] => {
    const [first, ...others] = all.filter(({ limit }) => ratesOf(limit) !== '');
    const kept = ratesOf(strictest(all.map(({ limit }) => limit)));
    return others.filter(({ limit }) => ratesOf(limit) !== ratesOf(first!.limit)).map((other) => {
      const at = place(first!);
      return {
        ...place(other),
        message: `${name(other)} has another limit (${ratesOf(other.limit)}) than ${name(first!)} in ${at.file}:${at.line} (${ratesOf(first!.limit)}), and both count together at account ${account}: kept is ${kept}`,
        remedy: 'state the same limit, or give limit.bucket two names where the vendor counts them apart',
      };
    });
  });
}

function withoutWord(release: Release): WorkspaceProblem[] {
  const routes = [...release.policy.routes.values()].flat();
  const told = new Set(routes.filter((route) => route.on === 'ConsentChange' && route.kind === 'restrict').map((route) => route.destination));
  const found = new Map<string, WorkspaceProblem>();
  for (const { destination, kind, purpose, file, line } of routes) {
    if (kind !== 'use' || told.has(destination) || found.has(destination) || release.policy.purposes.get(purpose ?? '')?.legalBasis !== 'consent') continue;
    found.set(destination, {
      file: file ?? `destinations/${destination}.yaml`, line: line ?? 0,
      message: `${destination} gets people for ${purpose}, which asks for consent, and is never told that one of them withdrew it`,
      remedy: 'add a route { on: ConsentChange, operation: <one of kind restrict> }, or see to it at the vendor',
    });
  }
  return [...found.values()];
}

function toldInTheClear({ policy, destinations }: Release): WorkspaceProblem[] {
  const routes = [...policy.routes.keys()].flatMap((on) => planOf(policy, on)!.routes.flatMap((plan) => (plan.second === undefined ? [plan] : [plan, plan.second])));
  const hashed = new Map<string, Set<string>>();
  for (const { route, transforms } of routes) {
    const fields = transforms.filter(({ rule }) => rule.effect === 'hash').flatMap(({ rule }) => [...rule.change!.keys()]);
    hashed.set(route.destination, new Set([...hashed.get(route.destination) ?? [], ...fields]));
  }
  return routes.flatMap(({ route: { kind, destination, operation, hash, file, line } }): WorkspaceProblem[] => {
    const named = kind === 'restrict' ? destinations.get(destination)?.operations[operation]?.identifiers ?? [] : [];
    const open = named.filter((field) => hashed.get(destination)!.has(field) && hash?.has(field) !== true);
    return open.length === 0 ? [] : [{
      file: file ?? `destinations/${destination}.yaml`, line: line ?? 0,
      message: `${destination} gets ${open.join(' and ')} hashed, and ${operation} tells it ${open.length === 1 ? 'that' : 'them'} in the clear: it may know nobody by that`,
      remedy: 'add hash: { as: <as the rule has it> } to the route',
    }];
  });
}
