import { everything } from '@weir/release';
import type { FastifyInstance } from 'fastify';

interface Change { readonly change: string; readonly name?: string }
const schema = {
  body: {
    type: 'object', additionalProperties: false, required: ['change'],
    properties: { change: { enum: ['set', 'remove', 'rotate-key', 'wrap-key', 'migrate'] }, name: { type: 'string', pattern: '^[A-Z][A-Z0-9_]{0,63}$' } },
  },
};

/** POST /v1/vault/changes: the audit leaf of a change that `weir vault` is about to make to the sealed file. The secret itself does not come here. */
export function vaultRoutes(app: FastifyInstance): void {
  app.post<{ Body: Change }>('/v1/vault/changes', {
    schema,
    config: {
      permission: 'secret.manage', scope: () => everything,
      action: (request) => `vault.${(request.body as Change).change}`, target: (request) => (request.body as Change).name ?? null,
      summary: 'Write the audit leaf of a change of the sealed secrets that the caller is about to make.',
    },
  }, async (request) => ({ leaf: request.leaf }));
}
