import type { Adapter } from '@weir/adapter';
import { manifest } from './manifest.ts';
import { source } from './source.ts';

export const adapter: Adapter = { manifest, source };
