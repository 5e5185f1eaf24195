#pragma once

#include "product.h"

/* Linear maps of a table of few distinct rows. All threads of a parallel region call these functions together. */

/* A table [rows, f] and its part of a weight, W [columns, f], whose rows are `apart` apart. */
typedef struct {
    ptrdiff_t rows, f, columns, apart;
    const real *table, *W;
} Table;

/* out [rows, stride] = table W^T + bias (or 0), with zeros beyond the columns. panels: scratch memory for
   f * padded(columns) numbers; with NULL nothing is done. */
static void map_table(Table t, const real *bias, real *panels, real *out, ptrdiff_t stride)
{
#pragma omp for schedule(static)
    for (ptrdiff_t from = 0; from < t.columns; from += PANEL)
        if (panels) pack(panels + from * t.f, t.W + from * t.apart, t.f, smaller(PANEL, t.columns - from), 1, t.apart);
#pragma omp for schedule(static)
    for (ptrdiff_t row = 0; row < t.rows; row += ROWS) {
        ptrdiff_t rows = panels ? smaller(ROWS, t.rows - row) : 0;
        const real *a[ROWS];
        for (ptrdiff_t i = 0; i < rows; i++) {
            real *to = out + (row + i) * stride;
            memset(to, 0, stride * sizeof *to);
            if (bias) memcpy(to, bias, t.columns * sizeof *to);
            a[i] = t.table + (row + i) * t.f;
        }
        product(rows, (Left){a, 1, t.f}, panels, 0, t.columns, out + row * stride, stride, 1);
    }
}

/* From the gradient of map_table's result, by [rows, columns]: by_W [columns, f], with rows `apart` apart, and by_bias
   [columns] unless it is NULL. panels: scratch memory for rows * padded(f) numbers; own: for ROWS * padded(f) numbers
   of each thread. If one of them is NULL, the gradients are not computed. */
static void map_table_backward(Table t, const real *by, real *panels, real *own, real *by_W, real *by_bias)
{
    ptrdiff_t stride = padded(t.f);
#pragma omp for schedule(static)
    for (ptrdiff_t from = 0; from < t.f; from += PANEL)
        if (panels) pack(panels + from * t.rows, t.table + from, t.rows, smaller(PANEL, t.f - from), t.f, 1);
#pragma omp for schedule(static)
    for (ptrdiff_t row = 0; row < t.columns; row += ROWS) {
        ptrdiff_t rows = panels && own ? smaller(ROWS, t.columns - row) : 0;
        const real *a[ROWS];
        spread(rows, a, by + row, 1);
        product(rows, (Left){a, t.columns, t.rows}, panels, 0, t.f, own, stride, 0);
        for (ptrdiff_t i = 0; i < rows; i++) memcpy(by_W + (row + i) * t.apart, own + i * stride, t.f * sizeof *by_W);
        for (ptrdiff_t i = 0; i < rows && by_bias; i++) {
            by_bias[row + i] = 0;
            for (ptrdiff_t k = 0; k < t.rows; k++) by_bias[row + i] += by[k * t.columns + row + i];
        }
    }
}
