import { expect, test } from 'vitest';
import { checkFile } from './check-boundaries.ts';

test.each([
  ['services/ingest/app.ts', "import { x } from '../policy/app.ts';", /no service knows another/],
  ['packages/log/appender.ts', "import { x } from '@weir/mapping';", /not below/],
  ['packages/state/table.ts', "import { x } from '../../services/ingest/app.ts';", /not below/],
  ['adapters/segment/source.ts', "import { x } from '../http/index.ts';", /do not know each other/],
  ['adapters/segment/source.ts', "import { x } from '@weir/log';", /@weir\/adapter and @weir\/errors/],
  ['services/policy/app.ts', "import { Kafka } from 'kafkajs';", /only packages\/log/],
  ['services/policy/app.ts', 'const x = process.env.HOME;', /process\.env/],
  ['packages/new/index.ts', "import { x } from '@weir/errors';", /has no layer/],
  ['packages/log/appender.ts', "export * from './records';", /without its extension/],
])('%s: %s is a violation', (path, text, message) => {
  expect(checkFile(path, text).map((v) => v.message).join()).toMatch(message);
});

test('what the layout allows is no violation', () => {
  expect(checkFile('services/ingest/app.ts', "import type { X } from '@weir/log';\nimport { y } from './routes.ts';")).toEqual([]);
  expect(checkFile('vitest.config.ts', "import X from './tests/setup/x.ts';")).toEqual([]);
});
