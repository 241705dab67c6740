export { fleetServices, startFleet, type Fleet, type FleetOptions, type FleetService } from './fleet.ts';
export { startInstance, type Instance, type InstanceOptions } from './instance.ts';
export { freePort } from './port.ts';
export { testPrefix, waitFor } from './wait.ts';
