#include "product.h"

/* out = (more ? out : 0) + left times b, for up to ROWS rows and WIDE vectors; rows of b are b_stride apart. */
static inline __attribute__((always_inline)) void tile(int rows, int wide, Left left, ptrdiff_t row, const real *b,
                                                       ptrdiff_t b_stride, real *out, ptrdiff_t stride, int more)
{
    vec sum[ROWS][WIDE];
    const real *a[ROWS];
    for (int r = 0; r < rows; r++) {
        a[r] = left.a[row + r];
        for (int v = 0; v < wide; v++)
            sum[r][v] = more ? *(const vec *)(out + (row + r) * stride + v * LANES) : (vec){0};
    }
    for (ptrdiff_t k = 0; k < left.inner; k++, b += b_stride) {
        vec right[WIDE];
        for (int v = 0; v < wide; v++) right[v] = *(const vec *)(b + v * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < wide; v++) sum[r][v] += a[r][k * left.step] * right[v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < wide; v++) *(vec *)(out + (row + r) * stride + v * LANES) = sum[r][v];
}

#define TILE(n, wide) tile(n, wide, left, row, b, step, out + from, stride, more)
#define WITH_ROWS(n)                                                                                                   \
    case n: wide == 3 ? TILE(n, 3) : wide == 2 ? TILE(n, 2) : TILE(n, 1); break;

void product(ptrdiff_t rows, Left left, const real *b, ptrdiff_t b_stride, ptrdiff_t columns, real *out,
             ptrdiff_t stride, int more)
{
    for (ptrdiff_t from = 0; from < columns; from += PANEL) {
        int wide = (int)(smaller(PANEL, padded(columns) - from) / LANES);
        ptrdiff_t step = b_stride ? b_stride : wide * LANES;
        for (ptrdiff_t row = 0; row < rows; row += ROWS) switch (smaller(ROWS, rows - row)) {
                WITH_ROWS(1)
                WITH_ROWS(2) WITH_ROWS(3) WITH_ROWS(4)
#if ROWS == 8
                    WITH_ROWS(5) WITH_ROWS(6) WITH_ROWS(7) WITH_ROWS(8)
#endif
            }
        b += b_stride ? PANEL : left.inner * wide * LANES;
    }
}
