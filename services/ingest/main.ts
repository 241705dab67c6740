import { registry } from '@weir/adapters';
import { runService } from '@weir/service';
import { createIngest } from './app.ts';
import { options } from './config.ts';

await runService('ingest', options, registry, (context, config) => createIngest(context, config), () => undefined);
