import { registry } from '@weir/adapters';
import { runService } from '@weir/service';
import { createDispatcher } from './app.ts';
import { options } from './config.ts';

await runService('dispatcher', options, registry, (context, config) => createDispatcher(context, config), (config) => config.port);
