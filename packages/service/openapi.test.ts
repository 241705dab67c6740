import { expect, test } from 'vitest';
import { count, inlined, instant, list, named, nullable, object, oneOf, optional, text, type TypeOf } from './json-schema.ts';
import { errorBody, openApiDocument, type DocumentedRoute } from './openapi.ts';

const part = named('Part', object('A part.', { size: count('Bytes.'), kind: nullable(oneOf(['a', 'b'], 'Its kind.')) }));
const thing = named('Thing', object('A thing.', { name: text('Its name.', { example: 'x' }), at: optional(instant('When.')), parts: list(part, 'Its parts.'), best: nullable(part) }));

const head = { title: 'T', description: 'D', tags: { things: 'Things.' }, securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } };
const route = (more: Partial<DocumentedRoute> = {}): DocumentedRoute => ({ method: 'GET', url: '/v1/things/:id', summary: 'A thing.', tag: 'things', replies: { 200: thing }, errors: ['not-found', 'forbidden', 'self-approval', { code: 'bad-request', status: 413 }], schema: undefined, security: ['bearer'], ...more });
const documentOf = (...routes: DocumentedRoute[]): any => openApiDocument(head, routes);

test('the type of an answer is the schema\'s: the compiler holds what is written here to it', () => {
  const value: TypeOf<typeof thing> = { name: 'x', parts: [{ size: 1, kind: null }], best: null };
  // @ts-expect-error a field that is required
  const lacks: TypeOf<typeof thing> = { parts: [], best: null };
  // @ts-expect-error a word that is not among them
  const other: TypeOf<typeof part> = { size: 1, kind: 'c' };
  expect([value, lacks, other]).toHaveLength(3);
});

test('named schemas are components, each once; the rest stands in its place', () => {
  const { components, paths } = documentOf(route(), route({ method: 'PUT' }));
  expect(Object.keys(components.schemas)).toEqual(['Error', 'Part', 'Thing']);
  expect(paths['/v1/things/{id}'].get.responses[200]).toEqual({ description: 'A thing.', content: { 'application/json': { schema: { $ref: '#/components/schemas/Thing' } } } });
  expect(components.schemas.Thing).toEqual({
    type: 'object', description: 'A thing.', required: ['name', 'parts', 'best'],
    properties: { name: { type: 'string', description: 'Its name.', examples: ['x'] }, at: { type: 'string', format: 'date-time', description: 'When.' }, parts: { type: 'array', items: { $ref: '#/components/schemas/Part' }, description: 'Its parts.' }, best: { anyOf: [{ $ref: '#/components/schemas/Part' }, { type: 'null' }] } },
  });
  expect(components.schemas.Part.properties.kind).toEqual({ type: ['string', 'null'], enum: ['a', 'b', null], description: 'Its kind.' });
  expect((inlined(thing)['properties'] as any).parts.items).toEqual(components.schemas.Part);
});

test('a route has the codes that it gives under their statuses, shared by routes with the same', () => {
  const { components, paths } = documentOf(route(), route({ url: '/v1/other' }), route({ url: '/v1/third', errors: ['workspace-invalid', 'not-found'] }));
  const { responses } = paths['/v1/things/{id}'].get;
  expect(Object.keys(responses)).toEqual(['200', '403', '404', '413']);
  expect(responses[403]).toEqual({ $ref: '#/components/responses/Error.403.forbidden.self-approval' });
  expect(paths['/v1/other'].get.responses[403]).toEqual(responses[403]);
  expect(components.responses['Error.403.forbidden.self-approval'].content['application/json'].schema).toEqual({ allOf: [{ $ref: `#/components/schemas/${errorBody.component}` }, { type: 'object', properties: { error: { enum: ['forbidden', 'self-approval'] } } }] });
  expect(Object.values(paths['/v1/third'].get.responses).slice(1)).toEqual(['Error.404.not-found', 'WorkspaceError.422.workspace-invalid'].map((name) => ({ $ref: `#/components/responses/${name}` })));
  expect(components.responses['Error.404.not-found'].headers).toBeUndefined();
});

test('where a service says when to come again, 429 and 503 have Retry-After', () => {
  const { components } = openApiDocument({ ...head, retryAfter: true }, [route({ errors: ['overloaded', 'log-unavailable', 'not-found'] })]) as any;
  expect(Object.keys(components.responses).filter((name) => components.responses[name].headers?.['Retry-After'] !== undefined)).toEqual(['Error.429.overloaded', 'Error.503.log-unavailable']);
});

test('parameters and bodies come from what fastify checks by, or from what a route says that it reads itself', () => {
  const body = { type: 'object', properties: { name: { type: 'string' } } };
  const { paths } = documentOf(
    route({ method: 'POST', schema: { params: { properties: { id: { type: 'string', pattern: 'x', description: 'Its id.' } } }, querystring: { required: ['n'], properties: { n: { type: 'integer', description: 'How many.' } } }, body } }),
    route({ method: 'PUT', schema: { body: { ...body, type: ['object', 'null'] } } }),
    route({ method: 'PATCH', body: { types: ['*/*'], description: 'Bytes.' }, parameters: [{ name: 'h', in: 'header', schema: { type: 'string' } }] }),
  );
  const { post, put, patch } = paths['/v1/things/{id}'];
  expect(post.parameters).toEqual([{ name: 'id', in: 'path', required: true, description: 'Its id.', schema: { type: 'string', pattern: 'x' } }, { name: 'n', in: 'query', required: true, description: 'How many.', schema: { type: 'integer' } }]);
  expect([post.requestBody, put.requestBody.required]).toEqual([{ required: true, content: { 'application/json': { schema: body } } }, false]);
  expect([patch.requestBody, patch.parameters.at(-1)]).toEqual([{ required: true, description: 'Bytes.', content: { '*/*': {} } }, { name: 'h', in: 'header', schema: { type: 'string' } }]);
});
