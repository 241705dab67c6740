import { WeirError } from '@weir/errors';

/** Every permission a route can ask for, and what it lets one do. */
export const permissions = {
  'status.read': 'See status, the running release in short, and topics.',
  'trace.read': 'See what happened to an event.',
  'dlq.read': 'List dead letters and their reasons.',
  'dlq.payload': 'See the bytes of a dead letter.',
  'replay.read': 'See replay orders.',
  'replay.order': 'Order, pause and cancel replays.',
  'delivery.resolve': 'Say whether a delivery of unknown effect took effect.',
  'release.read': 'See releases and their files.',
  'release.propose': 'Propose a release; apply it where no approval is required.',
  'release.approve': 'Approve what somebody else proposed.',
  'policy.explain': 'See why an event went where it went, with the values that rules read.',
  'policy.rehearse': 'Decide history once more by a changed policy.',
  'held.read': 'See deliveries that a rule holds.',
  'held.decide': 'Let held deliveries through, or refuse them.',
  'destination.switch': 'Pause and resume a destination (kill switch).',
  'topics.apply': 'Create missing topics.',
  'subject.read': 'See and export what is known of a person, and erasures.',
  'consent.read': 'See what is known of the consent of a person.',
  'consent.write': 'Record and import changes of consent.',
  'consent.settle': 'Close a change of consent that can be bound to nobody.',
  'erasure.order': 'Order the erasure of a person.',
  'audit.read': 'Read and verify the audit log.',
  'token.read': 'List API tokens.',
  'token.manage': 'Issue and revoke API tokens.',
  'secret.manage': 'Change the sealed secrets of the data folder.',
  'agent.report': 'Report the state of an instance.',
} as const;
export type Permission = keyof typeof permissions;
export const allPermissions = Object.keys(permissions) as Permission[];

const viewer: readonly Permission[] = ['status.read', 'trace.read', 'dlq.read', 'held.read', 'replay.read', 'release.read'];
const operator: readonly Permission[] = [...viewer, 'dlq.payload', 'replay.order', 'delivery.resolve', 'release.propose', 'policy.explain', 'policy.rehearse', 'destination.switch', 'topics.apply', 'consent.settle'];

/** What each role may do. What is not listed is denied. */
export const roles = {
  viewer,
  operator,
  privacy: ['status.read', 'trace.read', 'dlq.read', 'dlq.payload', 'held.read', 'policy.explain', 'consent.read', 'consent.write', 'consent.settle', 'subject.read', 'erasure.order', 'audit.read'],
  approver: ['status.read', 'trace.read', 'release.read', 'release.approve', 'held.read', 'held.decide', 'audit.read'],
  admin: allPermissions.filter((p) => p !== 'agent.report'),
  agent: ['status.read', 'agent.report'],
  /** For a preference centre or a form that records consent, and nothing else. */
  consent: ['consent.write'],
} as const satisfies Record<string, readonly Permission[]>;
export type Role = keyof typeof roles;
export const roleNames = Object.keys(roles) as Role[];

export type Names = '*' | readonly string[];

/** A role over sources and destinations. */
export interface Grant {
  readonly role: Role;
  readonly sources: Names;
  readonly destinations: Names;
}

/** What a request touches: '*' = any of them, [] = none. */
export interface Scope {
  readonly sources: Names;
  readonly destinations: Names;
}
export const everything: Scope = { sources: '*', destinations: '*' };
/** Asks for the permission only: nothing in the answer belongs to one source or destination. */
export const nothing: Scope = { sources: [], destinations: [] };

export interface Principal {
  /** Stands in the audit log: `admin`, `token:<id>`, `oidc:<subject>`. */
  readonly id: string;
  readonly grants: readonly Grant[];
}

const covers = (granted: Names, asked: Names): boolean => granted === '*' || (asked !== '*' && asked.every((name) => granted.includes(name)));

/** Default deny: one grant must have the permission and cover the whole scope. */
export function allows(principal: Principal, permission: Permission, scope: Scope): boolean {
  return principal.grants.some((g) => (roles[g.role] as readonly Permission[]).includes(permission) && covers(g.sources, scope.sources) && covers(g.destinations, scope.destinations));
}

const grantPattern = /^([a-z]{1,20})(?:@([a-z0-9-]+(?:\/[a-z0-9-]+)*|\*):([a-z0-9-]+(?:\/[a-z0-9-]+)*|\*))?$/;

/** `operator`, or `operator@<sources>:<destinations>` with names joined by `/` or `*`. Throws bad-request. */
export function parseGrant(text: string): Grant {
  const match = text.length > 500 ? null : grantPattern.exec(text);
  const role = match?.[1];
  if (match === null || !Object.hasOwn(roles, role!)) throw new WeirError('bad-request', `a grant is <role> or <role>@<sources>:<destinations>, with a role of ${roleNames.join(', ')}`);
  const names = (part: string | undefined): Names => (part === undefined || part === '*' ? '*' : part.split('/'));
  return { role: role as Role, sources: names(match[2]), destinations: names(match[3]) };
}

export function grantText(grant: Grant): string {
  const names = (list: Names): string => (list === '*' ? '*' : list.join('/'));
  return grant.sources === '*' && grant.destinations === '*' ? grant.role : `${grant.role}@${names(grant.sources)}:${names(grant.destinations)}`;
}
