/** The OpenAPI documents of what Weir serves, and their linter. */
import { registry } from '@weir/adapters';
import { BaseResolver, createConfig, lintDocument, makeDocumentFromString } from '@redocly/openapi-core';
import { controlDocument } from '../services/control/api.ts';
import { ingestDocument } from '../services/ingest/openapi.ts';

/** By path in the repository. */
export function openApiDocuments(): ReadonlyMap<string, string> {
  return new Map(Object.entries({ 'docs/api/control.json': controlDocument(), 'docs/api/ingest.json': ingestDocument(registry) }).map(([path, document]) => [path, `${JSON.stringify(document, null, 1)}\n`]));
}

/** What Redocly says of a document, a line each; `operation-4xx-response` is off, for health and metrics refuse nobody. */
export async function lintOpenApi(path: string, text: string): Promise<string[]> {
  const config = await createConfig({ extends: ['recommended'], rules: { 'operation-4xx-response': 'off' } });
  const problems = await lintDocument({ document: makeDocumentFromString(text, `/${path}`), externalRefResolver: new BaseResolver(), config });
  return [...problems.map((p) => `${path}: ${p.severity} ${p.ruleId}: ${p.message} ${p.location[0]?.pointer ?? ''}`), ...bare(JSON.parse(text), path)];
}

/** What the linter does not ask for: an object says what is in it, a parameter what it is. */
function bare(json: unknown, at: string): string[] {
  if (typeof json !== 'object' || json === null) return [];
  const fields = json as Readonly<Record<string, unknown>>;
  const says = ['properties', 'additionalProperties', 'description'].some((name) => name in fields);
  return [
    ...(fields['type'] === 'object' && !says ? [`${at}: an object of which nothing is said`] : []),
    ...('in' in fields && 'schema' in fields && fields['description'] === undefined ? [`${at}: a parameter without a description`] : []),
    ...Object.entries(fields).flatMap(([name, value]) => bare(value, `${at}/${name}`)),
  ];
}
