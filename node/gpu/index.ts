/**
 * GPUs of this machine: what there is, what is fit to be sold, and what they do while a job runs.
 *
 * device.ts says what is known of one; detect.ts asks the vendors' tools; gpus.ts keeps watch
 * over those that are sold, from the check inside a container at the start to the waiting for their memory after a job.
 */
export type { GpuDetection, GpuDevice, GpuSource, GpuVendor } from './device.ts';
export { type GpuDetector, createDetector } from './detect.ts';
export { type ExaminedGpu, type GpuExamination, Gpus, type GpuUse, examineGpus } from './gpus.ts';
