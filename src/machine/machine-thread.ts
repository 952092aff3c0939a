/** The thread that a machine lives in: messages to and from its handle. */
import { threadParent } from '#threads';
import { ConfigError, type MachineConfig, type MachineIo } from './config.ts';
import { forgetPrepared, prepareAccelerator, unloadAccelerators } from './accelerators.ts';
import { createMachine } from './create.ts';
import { ImageError } from './loader/loader.ts';
import type { LocalMachine, MachineEvents } from './machine.ts';
import { Drives } from '../storage/open.ts';
import {
  DEBUGCON_CHANNEL,
  FIRST_CHARDEV_CHANNEL,
  type FromMachine,
  type Answer,
  type MachineCommand,
  type Queries,
  type StateStep,
  type ToMachine,
} from './messages.ts';
import { Changes } from './changes.ts';
import { PortChannel } from './port-channel.ts';
import { drain, StateSink, StateSource } from './state-stream.ts';

const parent = threadParent<FromMachine, ToMachine>();
const post = (message: FromMachine): void => parent.post(message);
const channels = new Map<number, PortChannel>();
let traced: string[] = [];
let machine: LocalMachine | null = null;
let drives: Drives | null = null;
/** The machine is being saved, and must stand still. */
let saving = false;
let source: StateSource | null = null;
let sink: StateSink | null = null;
let changes: Changes | null = null;

/** Traced lines collected before they are sent. */
const TRACE_BATCH = 1000;

function flush(): void {
  for (const channel of channels.values()) channel.flush();
  if (traced.length === 0) return;
  post({ type: 'trace', lines: traced });
  traced = [];
}

function open(channel: number): PortChannel {
  const made = new PortChannel(channel, post);
  channels.set(channel, made);
  return made;
}

function openAll(config: MachineConfig, opened: Drives): MachineIo {
  return {
    drives: opened.backends,
    awaitsDisk: () => opened.underWay > 0,
    driveMemory: () => opened.memories.map(({ id, node }) => ({ id, bytes: node.pages })),
    serials: config.serials.map((serial, i) => (serial === 'none' ? null : open(i))),
    debugcon: config.debugcon === null ? null : open(DEBUGCON_CHANNEL),
    chardevs: new Map(config.chardevs.map((id, i) => [id, open(FIRST_CHARDEV_CHANNEL + i)])),
  };
}

function events(config: MachineConfig): MachineEvents {
  const wanted = new Set(config.trace);
  const base: MachineEvents = {
    onEnd: (event, status) => {
      flush();
      // What the guest has written is in its images before anybody is told that it has ended.
      closeDrives().then(() => {
        flush();
        unloadAccelerators();
        post({ type: 'end', event, status });
      });
    },
    onReset: () => post({ type: 'reset' }),
    onStateChange: (state) => post({ type: 'state', state }),
    onYield: flush,
    warn: (line) => post({ type: 'warning', line }),
  };
  if (wanted.size === 0) return base;
  return {
    ...base,
    trace: (category, line) => {
      if (!wanted.has(category)) return;
      traced.push(`${category}: ${line}`);
      if (traced.length >= TRACE_BATCH) flush();
    },
  };
}

async function closeDrives(): Promise<void> {
  try {
    await drives?.close();
  } catch (error) {
    post({ type: 'warning', line: `an image could not be closed: ${(error as Error).message}` });
  }
}

async function create(config: MachineConfig): Promise<void> {
  try {
    const told = events(config);
    drives = await Drives.open(config, {
      warn: (line) => told.warn?.(line),
      stop: (line) => {
        told.warn?.(`${line}; the machine is paused, and tries again when it goes on`);
        machine?.pause();
      },
    });
    const io = openAll(config, drives);
    const made = await createMachine(config, told, io);
    await networksReady(made);
    machine = made;
    changes = new Changes(made, drives, {
      openChannel: (id, channel) => io.chardevs.set(id, open(channel)),
      closeChannel: (id) => {
        flush();
        const closed = io.chardevs.get(id);
        io.chardevs.delete(id);
        for (const [number, one] of channels) if (one === closed) channels.delete(number);
      },
      hasChannel: (id) => io.chardevs.has(id),
      deleted: (device) => post({ type: 'deviceDeleted', ...device }),
    });
    forgetPrepared();
    post({ type: 'created' });
    if (!config.startPaused) machine.start();
  } catch (error) {
    await closeDrives();
    unloadAccelerators();
    const message = (error instanceof Error ? error.message : String(error)).split('\n')[0]!;
    if (error instanceof ImageError) {
      const why = message.replace(`kernel ${config.kernel?.name ?? ''}: `, '');
      return post({ type: 'failed', message: why, field: 'kernel' });
    }
    post({ type: 'failed', message, field: error instanceof ConfigError ? error.field : null });
  }
}

/** @throws ConfigError naming the network whose socket could not be had */
async function networksReady({ networks }: LocalMachine): Promise<void> {
  try {
    await networks.ready;
  } catch (error) {
    networks.close();
    throw new ConfigError('network', (error as Error).message);
  }
}

const COMMANDS: Record<MachineCommand, (machine: LocalMachine) => void | Promise<void>> = {
  start: (one) => {
    if (saving) throw new Error('the machine is being saved');
    for (const channel of channels.values()) channel.hold(false);
    drives?.retry();
    one.start();
  },
  pause: (one) => {
    one.pause();
    return drain(one, drives);
  },
  reset: (one) => one.reset(),
  quit: (one) => one.quit(),
  powerdown: (one) => one.board.powerButton(),
  nmi: (one) => one.board.injectNmi(),
};

async function beginSaving(one: LocalMachine, compress: boolean): Promise<void> {
  if (saving) throw new Error('the machine is being saved already');
  saving = true;
  for (const channel of channels.values()) channel.hold(true);
  try {
    source = await StateSource.begin(one, drives, compress);
  } catch (error) {
    saving = false;
    for (const channel of channels.values()) channel.hold(false);
    throw error;
  }
}

/** Saving and loading, a step at a time. */
async function state(one: LocalMachine, step: StateStep): Promise<Answer> {
  switch (step.step) {
    case 'save':
      await beginSaving(one, step.compress);
      return null;
    case 'next':
      return source?.next() ?? null;
    case 'end':
      await source?.end();
      source = null;
      saving = false;
      return null;
    case 'load':
      sink ??= new StateSink(one);
      await sink.put(step.data);
      if (step.data !== null) return null;
      await sink.loaded;
      return { wasRunning: one.wasRunning };
  }
}

/** @param work what answers the message */
function answer(id: number, work: (machine: LocalMachine) => Promise<Answer>): void {
  const attempt = async (): Promise<Answer> => {
    if (machine === null) throw new Error('there is no machine');
    return work(machine);
  };
  attempt().then(
    // Bytes are the handle's from now on.
    (value) => parent.post({ type: 'done', id, error: null, value }, value instanceof Uint8Array ? [value.buffer] : []),
    (error: Error) => post({ type: 'done', id, error: error.message.split('\n')[0]! }),
  );
}

const QUERIES: { [K in keyof Queries]: (machine: LocalMachine) => Queries[K] } = {
  text: ({ board }) => board.display?.text() ?? null,
  screen: ({ board }) => board.display?.text() ?? board.display?.graphics() ?? null,
  picture: ({ board }) => board.display?.picture() ?? null,
};

function query(id: number, name: keyof Queries): void {
  const value = machine === null ? null : QUERIES[name](machine);
  post({ type: 'done', id, error: null, value });
}

async function call({ id, call: name, given }: ToMachine & { type: 'call' }): Promise<void> {
  try {
    if (changes === null) throw new Error('there is no machine');
    const value = await changes.run(name, given as never);
    post({ type: 'done', id, error: null, value });
  } catch (error) {
    post({ type: 'done', id, error: (error as Error).message });
  }
  machine?.wake();
}

function handle(message: ToMachine): void {
  switch (message.type) {
    case 'query':
      return query(message.id, message.query);
    case 'call':
      return void call(message);
    case 'keys':
      return machine?.board.typist.type(message.sequences, () => post({ type: 'done', id: message.id, error: null }));
    case 'create':
      void create(message.config);
      return;
    case 'command':
      return answer(message.id, async (one) => {
        await COMMANDS[message.command](one);
        return null;
      });
    case 'state':
      return answer(message.id, (one) => state(one, message));
    case 'accelerator':
      return answer(message.id, async (one) => {
        if (one.accelerator.name === message.name) return null;
        try {
          await prepareAccelerator(message.name);
          one.setAccelerator(message.name);
        } finally {
          forgetPrepared();
        }
        return null;
      });
    case 'input':
      return channels.get(message.channel)?.receive(message.data);
    case 'consumed':
      return channels.get(message.channel)?.consumed(message.bytes);
    case 'break':
      return machine?.board.serials[message.channel]?.receiveBreak();
  }
}

parent.onMessage((message) => {
  handle(message);
  machine?.wake();
  flush();
});
