import type { Manifest } from '@weir/adapter';

const hour = 3_600_000;

export const manifest: Manifest = {
  name: 'standard-webhooks',
  title: 'Any sender of Standard Webhooks',
  docs: 'https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md',
  source: {
    kind: 'webhook',
    config: {
      secret: { type: 'string', secret: true, required: true, doc: 'Signing secret, whsec_<base64>; two separated by a space while one is being replaced.' },
      tolerance: { type: 'number', default: 300, doc: 'Seconds that a message may be old or ahead.' },
    },
    identity: { fields: ['webhook-id header'], unique: true, cite: 'Standard Webhooks 1.0: webhook-id is "The unique webhook identifier … the same when … resent due to a previous failure"; it reaches the item as the envelope' },
    retryHorizonMs: 96 * hour,
    limits: { bodyBytes: 1024 * 1024, items: 1, depth: 32 },
    mapping: 'mappings/standard-webhooks.yaml',
    signing: 'webhook-signature: list of v1,<base64 of HMAC-SHA256 over id.timestamp.body>; v1a and others are ignored',
  },
};
