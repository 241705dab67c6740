export { freePort } from './port.ts';
export { testPrefix, waitFor } from './wait.ts';
export { startInstance, type Instance, type InstanceOptions } from './instance.ts';
