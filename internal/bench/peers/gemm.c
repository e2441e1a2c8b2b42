/* Times y = x W^T by OpenBLAS, for `make bench-peers`: M N K, row-major. It runs
 * once, then once more and prints the seconds of that. The number of threads is set
 * in the environment (OPENBLAS_NUM_THREADS): changed later it does not hold. */
#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern char *openblas_get_config(void);
extern char *openblas_get_corename(void);

static float *values(size_t n) {
    float *p = malloc(n * sizeof *p);
    if (!p) {
        fprintf(stderr, "gemm: out of memory\n");
        exit(1);
    }
    unsigned s = 1;
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        p[i] = ((int)(s >> 16) - 32768) / 3276800.0f;
    }
    return p;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "version")) {
        printf("%s, running as %s\n", openblas_get_config(), openblas_get_corename());
        return 0;
    }
    if (argc != 4) {
        fprintf(stderr, "usage: gemm version | gemm M N K\n");
        return 2;
    }
    size_t m = strtoul(argv[1], 0, 10), n = strtoul(argv[2], 0, 10), k = strtoul(argv[3], 0, 10);
    float *x = values(m * k), *w = values(n * k), *y = values(m * n);
    struct timespec from, to;
    for (int i = 0; i < 2; i++) {
        clock_gettime(CLOCK_MONOTONIC, &from);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, x, k, w, k, 0, y, n);
        clock_gettime(CLOCK_MONOTONIC, &to);
    }
    printf("%.9f\n", (to.tv_sec - from.tv_sec) + (to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}
