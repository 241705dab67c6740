import type { WorkspaceProblem } from '@weir/errors';
import { usesOf, planOf, maxTransforms, type RoutePlan } from './plan.ts';
import type { CompiledPolicy, CompiledRoute } from './compile.ts';
import { changeable, droppable } from './minimise.ts';
import { canonicalSchemas } from './record-view.ts';

/**
 * What can only be seen when rules, routes, contracts and destinations are together: routes that would send less than a
 * record needs, rules that would leave out what a record can not be without, names of destinations, and residency
 * without a region of the destination.
 */
export function checkPolicy(policy: CompiledPolicy, destinations: ReadonlySet<string>): WorkspaceProblem[] {
  const problems: WorkspaceProblem[] = [];
  for (const rule of policy.rules) {
    for (const name of rule.route?.among ?? []) if (!destinations.has(name)) problems.push({ file: rule.file, line: rule.line, message: `rule ${rule.name}: no destination ${name}`, remedy: `use one of ${[...destinations].join(', ')}` });
  }
  const regioned = policy.rules.find((rule) => rule.effect === 'residency');
  const without = new Set<string>();
  for (const [recordName, routes] of policy.routes) {
    for (const [i, first] of routes.entries()) {
      if (first.kind === 'restrict') continue;
      const plan = planOf(policy, recordName)!.routes[i]!;
      for (const { route, transforms } of plan.second === undefined ? [plan] : [plan, plan.second]) {
        checkFields(policy, recordName, route, problems);
        checkTransforms(policy, recordName, route, transforms, problems);
        if (regioned !== undefined && (policy.governance?.destinationRegions.get(route.destination) ?? []).length === 0) without.add(route.destination);
      }
    }
  }
  for (const name of without) problems.push({ file: `destinations/${name}.yaml`, line: 1, message: `rule ${regioned!.name} of ${regioned!.file}:${regioned!.line} asks where ${name} keeps its data`, remedy: 'write region: with ISO 3166 codes' });
  return problems;
}

/** A field that a contract or the schema requires must be allowed for the purpose, or every delivery would be set aside. */
function checkFields(policy: CompiledPolicy, recordName: string, route: CompiledRoute, problems: WorkspaceProblem[]): void {
  const uses = usesOf(policy, recordName);
  for (const field of canonicalSchemas().get(recordName)!.fields) {
    const use = uses.get(field.name);
    if (use === undefined || use.purposes.has(route.purpose!) || (droppable(field) && !use.required)) continue;
    problems.push({ file: route.file ?? `destinations/${route.destination}.yaml`, line: route.line ?? 0, message: `${recordName}.${field.name} (${use.class}) is required and may not be used for ${route.purpose}`, remedy: `give class ${use.class} the purpose in purposes.yaml, or the field its own purposes in a contract` });
  }
}

function checkTransforms(policy: CompiledPolicy, recordName: string, route: CompiledRoute, transforms: RoutePlan['transforms'], problems: WorkspaceProblem[]): void {
  if (transforms.length > maxTransforms) problems.push({ file: route.file ?? '', line: route.line ?? 0, message: `more than ${maxTransforms} minimise, hash and mask rules meet this route`, remedy: 'merge some' });
  const uses = usesOf(policy, recordName);
  for (const { rule } of transforms) {
    const report = (field: string, what: string): void => {
      const message = `rule ${rule.name}: ${recordName}.${field} ${what}`;
      if (!problems.some((p) => p.message === message)) problems.push({ file: rule.file, line: rule.line, message, remedy: 'name another field, or add a when: that leaves this record out' });
    };
    for (const field of canonicalSchemas().get(recordName)!.fields) {
      if (rule.drop?.keep === false && rule.drop.fields.has(field.name) && (!droppable(field) || uses.get(field.name)?.required === true)) report(field.name, 'is required and can not be left out');
      if (rule.drop?.keep === true && !rule.drop.fields.has(field.name) && uses.get(field.name)?.required === true) report(field.name, 'is required by a contract and can not be left out');
      if (rule.change?.has(field.name) === true && !changeable(field)) report(field.name, 'can not be hashed or masked');
    }
  }
}
