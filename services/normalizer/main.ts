import { registry } from '@weir/adapters';
import { runService } from '@weir/service';
import { createNormalizer } from './app.ts';
import { options } from './config.ts';

await runService('normalizer', options, registry, (context, config) => createNormalizer(context, config), (config) => config.port);
