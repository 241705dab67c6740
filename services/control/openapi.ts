import { permissions, roles } from '@weir/release';
import { anything, list, map, named, object, openApiDocument, text, type AnySchema, type DocumentedRoute } from '@weir/service';
import type { DeclaredRoute } from './access.ts';

type Json = Readonly<Record<string, unknown>>;

const tags = {
  status: 'Counts, the running release, a live tail.', events: 'What happened to an event, and why.', dlq: 'Dead letters.', replays: 'Replay orders: preview, run, report.', deliveries: 'Deliveries that wait for a person.',
  releases: 'Releases, their approval, and the topics they need.', policy: 'History decided by changed policies.', destinations: 'Kill switches.', subjects: 'What is known of a person, and its erasure.', consent: 'What is known of consent, and what became of changes.',
  access: 'API tokens.', audit: 'The audit log.', service: 'Health, metrics and this document.',
} as const;
/** By the first part of the path under /v1. */
const tagOf: Readonly<Record<string, keyof typeof tags>> = {
  status: 'status', release: 'status', tail: 'status', events: 'events', dlq: 'dlq', replays: 'replays', deliveries: 'deliveries', held: 'deliveries', releases: 'releases', proposals: 'releases', topics: 'releases', rehearsals: 'policy',
  destinations: 'destinations', subjects: 'subjects', erasures: 'subjects', consent: 'consent', tokens: 'access', audit: 'audit', vault: 'audit', 'openapi.json': 'service',
};

const part = (description: string): AnySchema => map(anything('See the OpenAPI specification.'), description);
/** What `openApi` gives, as far as it says itself. */
export const documentReply = named('OpenApiDocument', object('OpenAPI 3.1 of this API.', {
  openapi: text('Version of the specification.', { example: '3.1.0' }), info: part('Title, version, licence.'), servers: list(part('A server.'), 'Where it is.'), tags: list(part('A tag.'), 'Groups of routes.'), paths: part('The routes.'), components: part('Schemas and security schemes.'),
}));

/** OpenAPI 3.1 of the route table. `issuer`: of the OIDC tokens that are taken; a placeholder stands for one that is not known. */
export function openApi(routes: readonly DeclaredRoute[], issuer = 'https://issuer.example'): Json {
  return openApiDocument({
    title: 'Weir control API',
    description: `What happened to events, dead letters, replays, releases, people, consent, access and audit. Roles and their permissions: ${Object.entries(roles).map(([role, list]) => `${role} (${list.join(', ')})`).join('; ')}.`,
    tags,
    securitySchemes: {
      bearer: { type: 'http', scheme: 'bearer', description: 'An API token (`weir token issue`, weir_…), or the admin token.' },
      oidc: { type: 'openIdConnect', openIdConnectUrl: `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, description: 'An access token (JWT) of the issuer in WEIR_OIDC_ISSUER, whose roles claim names roles of Weir.' },
    },
  }, routes.filter(({ method }) => method !== 'HEAD').map(documented));
}

function documented({ method, url, permission, action, summary, schema, replies, errors }: DeclaredRoute): DocumentedRoute {
  const tag = url.startsWith('/v1/') ? tagOf[url.split('/')[2]!] : 'service';
  if (tag === undefined) throw new Error(`${method} ${url} is in no group of the OpenAPI document: services/control/openapi.ts`);
  return {
    method, url, summary: summary!, tag, replies, errors, schema, security: permission === undefined ? [] : ['bearer', 'oidc'],
    ...(permission === undefined ? {} : { description: `Permission ${permission}: ${permissions[permission]}${action === undefined ? '' : ` Audit action ${action}.`}`, extensions: { 'x-permission': permission } }),
  };
}
