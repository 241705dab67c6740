import type { Manifest } from '@weir/adapter';

const hour = 3_600_000;

export const manifest: Manifest = {
  name: 'segment',
  title: 'Segment tracking API and webhooks',
  docs: 'https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/',
  source: {
    kind: 'webhook',
    config: {
      writeKey: { type: 'string', secret: true, required: true, doc: 'Write key that the SDKs send as Basic user name.' },
      sharedSecret: { type: 'string', secret: true, doc: 'Shared secret of a Segment webhook destination (X-Signature); absent: only the write key is taken.' },
    },
    identity: { fields: ['messageId', 'type'], unique: true, cite: 'Segment spec, common fields: messageId is "automatically collected … used to de-duplicate"; the examples of the spec have one messageId for calls of six types, so the type counts too; without a messageId the item is its own identity' },
    retryHorizonMs: 12 * hour,
    limits: { bodyBytes: 512 * 1024, items: 2500, depth: 32 },
    mapping: 'mappings/segment.yaml',
    publicKey: true,
    signing: 'Basic <write key>:, or X-Signature: HMAC-SHA1 hex of the body (Segment docs, webhooks destination). Segment signs a batch by its first event only; that is refused, for the other events are not covered.',
  },
};
