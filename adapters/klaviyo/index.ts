import type { Adapter } from '@weir/adapter';
import { destination } from './destination.ts';
import { manifest } from './manifest.ts';

export const adapter: Adapter = { manifest, destination };
