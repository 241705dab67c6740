import { registry } from '@weir/adapters';
import { runService } from '@weir/service';
import { oidcOptions } from '@weir/service/authenticate';
import { createIngest } from './app.ts';
import { options } from './config.ts';

await runService('ingest', options, registry, (context, config) => createIngest(context, { ...config, oidc: oidcOptions(config) }), () => undefined);
