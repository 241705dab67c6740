import type { Manifest } from '@weir/adapter';

export const manifest: Manifest = {
  name: 'http',
  title: 'Any HTTP API, described in YAML',
  docs: 'adapters/http/README.md',
  destination: {
    config: {
      baseUrl: { type: 'url', required: true, doc: 'Base URL; sandbox://<name> is the local sandbox.' },
      auth: { type: 'string', secret: true, doc: 'Credential; sent as given in authHeader.' },
      authHeader: { type: 'string', default: 'authorization', doc: 'Header that carries the credential.' },
      authPrefix: { type: 'string', default: 'Bearer ', doc: 'Text before the credential in the header.' },
      signingSecret: { type: 'string', secret: true, signs: true, doc: 'Sign requests by Standard Webhooks (whsec_ or plain text).' },
      operations: { type: 'object', required: true, doc: 'Operations by name: kind, accepts, method, path, body, headers, idempotency, verdicts, verify, batch, limit.' },
    },
    operations: {},
  },
};
