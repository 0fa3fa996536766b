/** Goal: what is told as warm is what jobs used last, bounded, and nothing private. Method: images one after the other. */
import { expect, test } from 'vitest';

import { WarmImages } from '../../../node/provider/warm-images.ts';

test('images are told in the order of their last use', () => {
  const images = new WarmImages();
  for (const reference of ['a', 'b', 'a']) images.use(reference, false);
  expect(images.list()).toEqual(['a', 'b']);
});

test('an image that was pulled with a login is not told, also when it was told before', () => {
  const images = new WarmImages();
  images.use('a', true);
  expect(images.list()).toEqual([]);
  images.use('a', false);
  images.use('a', true);
  expect(images.list()).toEqual([]);
});

test('those that were used longest ago are forgotten', () => {
  const images = new WarmImages();
  for (let count = 0; count < 70; count++) images.use(`image ${count}`, false);
  expect(images.list()).toHaveLength(64);
  expect(images.list()[0]).toBe('image 69');
  expect(images.list()).not.toContain('image 5');
});
