/** Entry of the thread that a machine lives in whose vCPU runs by KVM: there is no translator to load. */
import './machine-thread.ts';
