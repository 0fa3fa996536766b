import { findEngine } from '../fixtures/engine.ts';
import { openContainerRuntime } from './container.ts';
import { describeRuntime } from './runtime.ts';

const { socketPath = '', reason } = await findEngine();
describeRuntime('container', async () => openContainerRuntime({ socketPath }), reason);
