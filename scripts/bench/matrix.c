/* The native side of the compute kernel of the bench: what matrix-kernel.ts writes as WebAssembly, in C. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#define N 512
#define ROUNDS 4

static float a[N * N], b[N * N], c[N * N];

int main(void) {
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < N * N; i++) a[i] = (float)((i * 4) & 255) * 0.0078125f;
  for (int i = 0; i < N * N; i++) b[i] = (float)((i * 4) & 255) * 0.0078125f;
  for (int round = 0; round < ROUNDS; round++)
    for (int i = 0; i < N; i++)
      for (int k = 0; k < N; k++) {
        float factor = a[i * N + k];
        for (int j = 0; j < N; j++) c[i * N + j] += factor * b[k * N + j];
      }
  clock_gettime(CLOCK_MONOTONIC, &end);
  unsigned bits;
  memcpy(&bits, &c[N * N - 1], sizeof bits);
  printf("%u %.3f\n", bits, (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6);
}
