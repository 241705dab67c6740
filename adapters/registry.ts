import type { Adapter } from '@weir/adapter';
import { adapter as http } from './http/index.ts';
import { adapter as segment } from './segment/index.ts';
import { adapter as sendgrid } from './sendgrid/index.ts';

/** Every tool that Weir knows: one line each. */
const all: readonly Adapter[] = [
  http,
  segment,
  sendgrid,
];

export const registry: ReadonlyMap<string, Adapter> = new Map(all.map((adapter) => [adapter.manifest.name, adapter]));
