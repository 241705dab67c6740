import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createMetrics } from './metrics.ts';

const valuesOf = (text: string, name: string): string[] => text.split('\n').filter((line) => line.startsWith(`${name}{`)).sort();

test('what ended and what is in flight is told as it was counted, whenever it is asked for', async () => {
  const registry = new Registry();
  const metrics = createMetrics(registry);
  for (let i = 0; i < 3; i++) metrics.end('crm', 'send', 'delivered', '');
  metrics.end('crm', 'send', 'denied', 'consent-missing');
  metrics.end('crm', 'send', 'delivered', '');
  metrics.callsInFlight('crm', 7);
  const ended = (): Promise<string[]> => registry.metrics().then((text) => valuesOf(text, 'weir_deliveries_ended_total'));
  const told = ['weir_deliveries_ended_total{destination="crm",operation="send",state="delivered",code=""} 4', 'weir_deliveries_ended_total{destination="crm",operation="send",state="denied",code="consent-missing"} 1'];
  expect(await ended()).toEqual(told);
  expect(await ended()).toEqual(told);
  metrics.end('ads', 'send', 'delivered', '');
  metrics.end('crm', 'send', 'denied', 'consent-missing');
  metrics.callsInFlight('crm', 0);
  expect(await ended()).toEqual(['weir_deliveries_ended_total{destination="ads",operation="send",state="delivered",code=""} 1', told[0], told[1]!.replace(/1$/, '2')]);
  expect(valuesOf(await registry.metrics(), 'weir_delivery_calls_in_flight')).toEqual(['weir_delivery_calls_in_flight{destination="crm"} 0']);
});
