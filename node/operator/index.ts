/**
 * Operating a node: its control door, and what the commands of its operator ask of it.
 *
 * operator.ts is the one interface of those commands, whether the node runs or not; door.ts serves it, door-client.ts
 * speaks to it.
 */
export { type Operated, openDoor, openMetricsPort } from './door.ts';
export { type JobSummary, summarise } from './job-summary.ts';
export { DRAINING, type LogQuery, type NodeStatus, type Operator, newestFirst, openOperator } from './operator.ts';
