/** A call of the Segment API, as an SDK makes it: `path` is what stands behind `/v1/`. */
export function callSegment(ingest: string, writeKey: string, path: string, body: unknown): Promise<Response> {
  return fetch(`${ingest}/v1/${path}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Basic ${Buffer.from(`${writeKey}:`).toString('base64')}` }, body: JSON.stringify(body) });
}
