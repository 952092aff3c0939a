/** Whether a block counts its executions down, to become a region; or only looks whether somebody else has. For all of them: those that are slow. */
export const COUNT_NONE = 0;
export const COUNT_ALL = 1;
export const COUNT_LOOK = 2;
export const COUNT_SLOW = 3;
