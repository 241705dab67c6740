/**
 * How long a stage waits for the acknowledgement of an append, ms. It holds its records and its place meanwhile, so an
 * outage of the brokers up to this long needs no restart; past it the process stops without a commit.
 */
export const appendDeadlineMs = 600_000;
