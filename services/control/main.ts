import { registry } from '@weir/adapters';
import { runService } from '@weir/service';
import { createControl } from './app.ts';
import { options } from './config.ts';

await runService('control', options, registry, (context, config) => createControl(context, { ...config, adapters: registry }), () => undefined);
