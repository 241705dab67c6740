import { catalogue, type CatalogueEntry } from '@weir/errors';
import type { DeclaredRoute } from './access.ts';
import { permissions, roles } from '@weir/release';

type Json = Record<string, unknown>;
interface ObjectSchema { readonly properties?: Record<string, Json>; readonly required?: readonly string[] }

const errorStatuses = [...new Set(Object.values(catalogue as Record<string, CatalogueEntry>).map((e) => e.http).filter((s): s is number => s !== undefined && [400, 401, 403, 404, 422, 503].includes(s)))].sort((a, b) => a - b);

/** OpenAPI 3.1 of the route table: what is declared there is all there is. */
export function openApi(routes: readonly DeclaredRoute[]): Json {
  const paths: Record<string, Json> = {};
  for (const route of routes) {
    if (!route.url.startsWith('/v1') || route.method === 'HEAD') continue;
    const path = route.url.replace(/:([a-zA-Z]+)/g, '{$1}');
    (paths[path] ??= {})[route.method.toLowerCase()] = operation(route, path);
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Weir control API', version: '1.0.0', description: `Roles and their permissions: ${Object.entries(roles).map(([role, list]) => `${role} (${list.join(', ')})`).join('; ')}.`, license: { name: 'Apache-2.0', identifier: 'Apache-2.0' } },
    servers: [{ url: '/' }],
    security: [{ bearer: [] }],
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer', description: 'An API token (weir_…), the admin token, or a JWT of the OIDC issuer.' } },
      schemas: { Error: { type: 'object', required: ['error', 'message'], properties: { error: { type: 'string', description: 'Code of docs/errors.md.' }, message: { type: 'string' }, problems: { type: 'array', items: { type: 'object' } } } } },
    },
  };
}

function operation({ method, url, permission, action, summary, schema }: DeclaredRoute, path: string): Json {
  const params = schema?.params as ObjectSchema | undefined;
  const query = schema?.querystring as ObjectSchema | undefined;
  const parameters = [
    ...[...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({ name, in: 'path', required: true, schema: params?.properties?.[name!] ?? { type: 'string' } })),
    ...Object.entries(query?.properties ?? {}).map(([name, type]) => ({ name, in: 'query', required: query?.required?.includes(name) ?? false, schema: type })),
  ];
  return {
    operationId: `${method.toLowerCase()}${url.replace(/^\/v1/, '').replace(/[^a-zA-Z]+(\w?)/g, (_, c: string) => c.toUpperCase())}`,
    summary: summary ?? url,
    description: `Permission ${permission}: ${permissions[permission!]}${action === undefined ? '' : ` Audit action ${action}.`}`,
    'x-permission': permission,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(schema?.body === undefined ? {} : { requestBody: { required: true, content: { 'application/json': { schema: schema.body } } } }),
    responses: {
      200: { description: 'Done.', content: { 'application/json': { schema: { type: 'object' } } } },
      ...Object.fromEntries(errorStatuses.map((status) => [status, { description: 'Refused.', content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } } }])),
    },
  };
}
