import type { Manifest } from '@weir/adapter';

export const manifest: Manifest = {
  name: 'http',
  title: 'Any HTTP API, described in YAML',
  docs: 'adapters/http/README.md',
  destination: {
    config: {
      baseUrl: { type: 'url', required: true, doc: 'Base URL; sandbox://<name> is the local sandbox.' },
      auth: { type: 'string', secret: true, scopesIn: 'scopes', doc: 'Credential; sent as given in authHeader.' },
      scopes: { type: 'string[]', doc: 'Scopes that auth must have been given; of an OAuth2 client weir doctor and the log of the dispatcher say which its token lacks.' },
      authHeader: { type: 'string', default: 'authorization', doc: 'Header that carries the credential.' },
      authPrefix: { type: 'string', default: 'Bearer ', doc: 'Text before the credential in the header.' },
      signingSecret: { type: 'string', secret: true, signs: true, doc: 'Sign requests by Standard Webhooks (whsec_ or plain text).' },
      operations: { type: 'object', required: true, doc: 'Operations by name: kind, accepts, method, path, body, headers, idempotency, verdicts, verify, batch, limit.' },
    },
    operations: {},
  },
};
