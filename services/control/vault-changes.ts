import { everything } from '@weir/release';
import { object, text } from '@weir/service';
import type { FastifyInstance } from 'fastify';

interface Change { readonly change: string; readonly name?: string }
const schema = {
  body: {
    type: 'object', additionalProperties: false, required: ['change'],
    properties: { change: { enum: ['set', 'remove', 'rotate-key', 'wrap-key', 'migrate'], description: 'What is about to be done.' }, name: { type: 'string', pattern: '^[A-Z][A-Z0-9_]{0,63}$', description: 'Name of the secret, where it is of one.' } },
  },
};

/** POST /v1/vault/changes: the audit leaf of a change that `weir vault` is about to make to the sealed file. The secret itself does not come here. */
export function vaultRoutes(app: FastifyInstance): void {
  app.post<{ Body: Change }>('/v1/vault/changes', {
    schema,
    config: {
      replies: { 200: object('The leaf that was written.', { leaf: text('Id of the audit leaf, for the sealed file to name.') }) },
      permission: 'secret.manage', scope: () => everything,
      action: (request) => `vault.${(request.body as Change).change}`, target: (request) => (request.body as Change).name ?? null,
      summary: 'Write the audit leaf of a change of the sealed secrets that the caller is about to make.',
    },
  }, async (request) => ({ leaf: request.leaf }));
}
