/**
 * Events kept from the beginning for any number of readers, bounded: beyond the bound the oldest events are dropped,
 * since the whole output is in the provider's keeping and in the `onEvent` callback as it came.
 */
const EVENTS_MAX = 20_000;

export class EventStream<Event> implements AsyncIterable<Event> {
  readonly #events: Event[] = [];
  #dropped = 0;
  #ended = false;
  #changed = Promise.withResolvers<void>();

  push(event: Event): void {
    this.#events.push(event);
    if (this.#events.length > EVENTS_MAX) {
      this.#events.shift();
      this.#dropped++;
    }
    this.#wake();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Event> {
    let next = 0;
    for (;;) {
      next = Math.max(next, this.#dropped);
      const event = this.#events[next - this.#dropped];
      if (event !== undefined) {
        next++;
        yield event;
      } else if (this.#ended) return;
      else await this.#changed.promise;
    }
  }

  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}
