import type { Adapter } from '@weir/adapter';
import { destination } from './destination.ts';
import { manifest } from './manifest.ts';
import { source } from './source.ts';

export const adapter: Adapter = { manifest, source, destination };
