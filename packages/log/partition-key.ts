/** A partition of a topic as the key of a map, and as messages name it. */
export const partitionKey = (of: { readonly topic: string; readonly partition: number }): string => `${of.topic}/${of.partition}`;
