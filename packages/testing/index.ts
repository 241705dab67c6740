export { fleetServices, startFleet, type Fleet, type FleetOptions, type FleetService } from './fleet.ts';
export { startInstance, type Instance, type InstanceOptions } from './instance.ts';
export { createAuthority, type Authority, type Issued } from './certificates.ts';
export { cpuMs } from './cpu.ts';
export { freeze } from './freeze.ts';
export { readKeys } from './keys.ts';
export { freePort } from './port.ts';
export { spawnTied } from './tied.ts';
export { testPrefix, waitFor } from './wait.ts';
