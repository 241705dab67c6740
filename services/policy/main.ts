import { registry } from '@weir/adapters';
import { runService } from '@weir/service';
import { createPolicy } from './app.ts';
import { options } from './config.ts';

await runService('policy', options, registry, createPolicy, (config) => config.port);
