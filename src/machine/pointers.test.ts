import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { InputEvent, InputPointer } from './interfaces.ts';
import { Pointers } from './pointers.ts';

const ABSOLUTE: InputEvent = { type: 'abs', data: { axis: 'x', value: 1 } };
const RELATIVE: InputEvent = { type: 'rel', data: { axis: 'y', value: 1 } };
const BUTTON: InputEvent = { type: 'btn', data: { down: true, button: 'left' } };

function pointer(absolute: boolean, taken: string[], name: string): InputPointer & { listens: boolean } {
  return { absolute, relative: !absolute, listens: true, take: (events) => void taken.push(`${name} ${events[0]!.type}`) };
}

test('events go to the newest device that knows such and listens, buttons to where the last movement went', () => {
  const taken: string[] = [];
  const pointers = new Pointers();
  const [old, tablet, mouse] = [pointer(false, taken, 'old'), pointer(true, taken, 'tablet'), pointer(false, taken, 'mouse')];
  assert.equal(pointers.send([RELATIVE]), false, 'there is none');
  pointers.add(old);
  pointers.add(tablet);
  const remove = pointers.add(mouse);
  for (const event of [RELATIVE, BUTTON, ABSOLUTE, BUTTON]) assert.equal(pointers.send([event]), true);
  mouse.listens = false;
  pointers.send([RELATIVE]);
  mouse.listens = true;
  remove();
  pointers.send([RELATIVE]);
  tablet.listens = false;
  assert.equal(pointers.send([ABSOLUTE]), false);
  assert.deepEqual(taken, ['mouse rel', 'mouse btn', 'tablet abs', 'tablet btn', 'old rel', 'old rel']);
});
