import type { Adapter, AdapterConfig } from '@weir/adapter';
import { openApiDocument, type DocumentedRoute } from '@weir/service';
import { registerConsent } from './consent-routes.ts';
import { registerOps } from './ops-routes.ts';
import { registerRoutes } from './routes.ts';
import { createServer } from './server.ts';

type Json = Readonly<Record<string, unknown>>;

const tags = { webhooks: 'Webhooks of vendors.', tracking: 'The Segment HTTP tracking API.', consent: 'Changes of consent.', service: 'Health, readiness and metrics.' };

/** OpenAPI 3.1 of everything that ingest serves: the routes are added as in the service, and none is called. */
export function ingestDocument(adapters: ReadonlyMap<string, Adapter>): Json {
  const app = createServer({ requestTimeoutMs: 1000, refused: () => undefined });
  const none = {} as never;
  registerOps(app, none);
  registerRoutes(app, none);
  registerConsent(app, none);
  const signatures = Object.fromEntries([...adapters.values()].flatMap((adapter) => signatureOf(adapter)));
  return openApiDocument({
    title: 'Weir ingest',
    description: 'What senders call: webhooks, the Segment HTTP tracking API and changes of consent. It answers 2xx only for what the log has acknowledged by all in-sync replicas; nothing of a refused request is kept.',
    tags, retryAfter: true,
    securitySchemes: {
      bearer: { type: 'http', scheme: 'bearer', description: 'An API token (`weir token issue`, weir_…) with the permission consent.write, or the admin token.' },
      oidc: { type: 'openIdConnect', openIdConnectUrl: 'https://issuer.example/.well-known/openid-configuration', description: 'An access token (JWT) of the issuer in WEIR_OIDC_ISSUER, whose roles claim names a role with the permission consent.write.' },
      writeKey: { type: 'http', scheme: 'basic', description: 'The write key of the source as user name; the password is empty.' },
      ...signatures,
    },
  }, app.declaredRoutes.filter(({ config }) => config.undocumented === undefined).map((route) => documented(route, Object.keys(signatures))));
}

function documented({ method, url, config }: ReturnType<typeof createServer>['declaredRoutes'][number], signatures: readonly string[]): DocumentedRoute {
  const { summary, tag, replies, errors, refusal, inputs } = config;
  return {
    method, url, summary: summary!, tag: tag!, replies: replies!, errors: errors!, refusal, description: inputs?.description, body: inputs?.body, parameters: inputs?.parameters,
    security: tag === 'webhooks' ? signatures : inputs?.security ?? [],
    schema: tag === 'webhooks' ? { params: { type: 'object', properties: { source: { type: 'string', description: 'Name of the source in the workspace.' } } } } : undefined,
  };
}

/** How a vendor signs, by the header that its adapter signs with. */
function signatureOf({ manifest, source }: Adapter): [string, Json][] {
  if (source?.kind !== 'webhook' || manifest.source === undefined) return [];
  const made = source.localSecrets?.() ?? {};
  const config: AdapterConfig = Object.fromEntries(Object.entries(manifest.source.config).map(([name, { default: value }]) => [name, made[name]?.signingValue ?? made[name]?.value ?? value ?? 'secret']));
  const { headers } = source.sign(Buffer.from('{}'), config, 0);
  const description = `${manifest.title}. ${manifest.source.signing ?? ''}`.trim();
  const [scheme] = headers['authorization']?.split(' ') ?? [];
  if (scheme !== undefined) return [[manifest.name, { type: 'http', scheme: scheme.toLowerCase(), description }]];
  const name = Object.keys(headers).find((header) => header.includes('signature'));
  if (name === undefined) throw new Error(`${manifest.name} signs with no header that is known: services/ingest/openapi.ts`);
  return [[manifest.name, { type: 'apiKey', in: 'header', name, description }]];
}
