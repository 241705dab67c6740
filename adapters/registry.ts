import type { Adapter } from '@weir/adapter';
import { adapter as http } from './http/index.ts';
import { adapter as httpPoll } from './http-poll/index.ts';
import { adapter as klaviyo } from './klaviyo/index.ts';
import { adapter as onetrust } from './onetrust/index.ts';
import { adapter as segment } from './segment/index.ts';
import { adapter as sendgrid } from './sendgrid/index.ts';
import { adapter as standardWebhooks } from './standard-webhooks/index.ts';
import { adapter as stripe } from './stripe/index.ts';

/** Every tool that Weir knows: one line each. */
const all: readonly Adapter[] = [
  http,
  httpPoll,
  klaviyo,
  onetrust,
  segment,
  sendgrid,
  standardWebhooks,
  stripe,
];

export const registry: ReadonlyMap<string, Adapter> = new Map(all.map((adapter) => [adapter.manifest.name, adapter]));
