#include "product.h"

/* The lists of rows that GROVER and CMPNN sum, and which rows they need not tell apart (models/grover_graph.py,
   models/message_graph.py). Lists are one array `rows` of numbers and `offsets`, where each begins, one more than there are
   lists. */

/* src and dst [bonds] of n atoms -> the bonds that enter each atom, in their order; and found [1], how many pairs of
   bonds follow one another without turning back. */
int entering_bonds(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t bonds, const int64_t *src, const int64_t *dst, int64_t *rows,
                   int64_t *offsets, int64_t *found)
{
    (void)threads;
    int64_t *next = malloc((n + 1) * sizeof *next);
    if (!next) return 1;
    memset(offsets, 0, (n + 1) * sizeof *offsets);
    for (ptrdiff_t b = 0; b < bonds; b++) offsets[dst[b] + 1]++;
    *found = -(int64_t)bonds;
    for (ptrdiff_t b = 0; b < bonds; b++) *found += offsets[src[b] + 1];
    for (ptrdiff_t i = 0; i < n; i++) offsets[i + 1] += offsets[i];
    memcpy(next, offsets, (n + 1) * sizeof *next);
    for (ptrdiff_t b = 0; b < bonds; b++) rows[next[dst[b]]++] = b;
    free(next);
    return 0;
}

/* Of each bond b those that enter its source, but for its reverse, which is b ^ 1: before and its offsets. */
static void following_bonds(ptrdiff_t bonds, const int64_t *src, const int64_t *rows, const int64_t *offsets, int64_t *before,
                            int64_t *before_offsets)
{
    ptrdiff_t at = 0;
    for (ptrdiff_t b = 0; b < bonds; b++) {
        before_offsets[b] = at;
        for (int64_t k = offsets[src[b]]; k < offsets[src[b] + 1]; k++)
            if (rows[k] != (b ^ 1)) before[at++] = rows[k];
    }
    before_offsets[bonds] = at;
}

/* lists of `targets` rows of numbers below n -> of each number the targets in whose lists it is, as often */
int transposed_lists(ptrdiff_t threads, ptrdiff_t targets, ptrdiff_t n, const int64_t *rows, const int64_t *offsets,
                     int64_t *back, int64_t *back_offsets)
{
    (void)threads;
    int64_t *next = malloc((n + 1) * sizeof *next);
    if (!next) return 1;
    memset(back_offsets, 0, (n + 1) * sizeof *back_offsets);
    for (int64_t k = 0; k < offsets[targets]; k++) back_offsets[rows[k] + 1]++;
    for (ptrdiff_t i = 0; i < n; i++) back_offsets[i + 1] += back_offsets[i];
    memcpy(next, back_offsets, (n + 1) * sizeof *next);
    for (ptrdiff_t t = 0; t < targets; t++)
        for (int64_t k = offsets[t]; k < offsets[t + 1]; k++) back[next[rows[k]]++] = t;
    free(next);
    return 0;
}

enum { MOST = 640 }; /* rows of a chunk, unless one molecule has more */

/* sizes [molecules] -> bounds [molecules + 1], where chunks of whole molecules begin, and found [1], how many they are: as
   many for each thread, of much the same size. */
int chunks(ptrdiff_t threads, ptrdiff_t molecules, const int64_t *sizes, int64_t *bounds, int64_t *found)
{
    ptrdiff_t all = 0, rows = 0, count = 0;
    for (ptrdiff_t k = 0; k < molecules; k++) all += sizes[k];
    ptrdiff_t wanted = (all + threads * MOST - 1) / (threads * MOST) * threads;
    bounds[0] = 0;
    for (ptrdiff_t k = 0; k < molecules; k++) {
        rows += sizes[k];
        /* A chunk ends where the next molecule would take it further from its share than it is. */
        ptrdiff_t goal = all * (count + 1) / (wanted ? wanted : 1), next = k + 1 < molecules ? sizes[k + 1] : 0;
        if (k + 1 == molecules || 2 * (goal - rows) <= next) bounds[++count] = rows;
    }
    *found = count;
    return 0;
}

/* A chunk's rows and their lists, while they are told apart. */
typedef struct {
    ptrdiff_t begin, n;
    const int64_t *rows, *offsets;
    int64_t *class, *sorted; /* class [n] of each row; sorted [entries] classes of each row's list */
    const int64_t *listed;   /* classes of what the lists hold */
} Partition;

static void sort(int64_t *values, ptrdiff_t n)
{
    for (ptrdiff_t i = 1; i < n; i++) {
        int64_t value = values[i];
        ptrdiff_t k = i;
        for (; k > 0 && values[k - 1] > value; k--) values[k] = values[k - 1];
        values[k] = value;
    }
}

static int same(const Partition *p, ptrdiff_t i, ptrdiff_t j)
{
    const int64_t *at = p->offsets + p->begin, *a = p->sorted + at[i] - at[0], *b = p->sorted + at[j] - at[0];
    ptrdiff_t n = at[i + 1] - at[i];
    return p->class[i] == p->class[j] && at[j + 1] - at[j] == n && !memcmp(a, b, n * sizeof *a);
}

/* Tells rows apart by their class and the classes in their lists, whatever their order; first [n] receives a row of each new class. Returns how
   many classes there are now. table: `places` numbers, a power of 2 and more than n; next [n]. */
static ptrdiff_t refine(Partition *p, int64_t *first, int64_t *next, int64_t *table, ptrdiff_t places)
{
    const int64_t *at = p->offsets + p->begin;
    ptrdiff_t count = 0;
    memset(table, -1, places * sizeof *table);
    for (ptrdiff_t i = 0; i < p->n; i++) {
        int64_t *own = p->sorted + at[i] - at[0];
        ptrdiff_t size = at[i + 1] - at[i];
        for (ptrdiff_t k = 0; k < size; k++) own[k] = p->listed[p->rows[at[i] + k] - p->begin];
        sort(own, size);
        uint64_t hash = p->class[i] + 1;
        for (ptrdiff_t k = 0; k < size; k++) hash = (hash ^ (own[k] + 1)) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
        ptrdiff_t place = (hash * 0x9E3779B97F4A7C15u >> 32) & (places - 1);
        while (table[place] >= 0 && !same(p, first[table[place]], i)) place = (place + 1) & (places - 1);
        if (table[place] < 0) first[count] = i, table[place] = count++;
        next[i] = table[place];
    }
    memcpy(p->class, next, p->n * sizeof *next);
    return count;
}

/* The classes of a chunk's rows after `steps` steps of message passing from features a and b (or 0), and in history
   [steps, n] those after each step. */
static ptrdiff_t tell_apart(Partition *p, const int64_t *a, const int64_t *b, ptrdiff_t kinds, ptrdiff_t steps, int64_t *first,
                            int64_t *history, ptrdiff_t n)
{
    ptrdiff_t places = 4, entries = p->offsets[p->begin + p->n] - p->offsets[p->begin], count = 0, before = -1;
    if (!p->n) return 0;
    while (places < 2 * p->n) places *= 2;
    int64_t *table = malloc((places + p->n + entries + 1) * sizeof *table);
    if (!table) return -1;
    p->sorted = table + places + p->n;
    for (ptrdiff_t i = 0; i < p->n; i++) p->class[i] = a[p->begin + i] + (b ? b[p->begin + i] * kinds : 0);
    for (ptrdiff_t t = 0; t < steps; t++) {
        if (count != before) before = count, count = refine(p, first, table + places, table, places);
        memcpy(history + t * n + p->begin, p->class, p->n * sizeof *history);
    }
    free(table);
    return count;
}

/* Rows of a chunk that have equal features, and neighbours that have, and so on for `steps` steps (1 or more), are one
   class, because their states are equal. Lists of n rows, chunks' bounds, features a [n] below `kinds` and b [n] (or 0)
   -> class [n]; chosen [n], a row of each class; class_bounds, where a chunk's classes begin; the lists of the chosen
   rows, of classes; and same [steps, n], of each class the first that is equal to it after so many steps. */
static int classes(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t chunks, const int64_t *bounds, const int64_t *rows,
                   const int64_t *offsets, const int64_t *a, const int64_t *b, ptrdiff_t kinds, ptrdiff_t steps, int64_t *class,
                   int64_t *chosen, int64_t *class_bounds, int64_t *class_rows, int64_t *class_offsets, int64_t *same)
{
    int64_t *history = malloc((steps + 1) * (n + 1) * sizeof *history), *seen = history + steps * n;
    int failed = !history;
    if (failed) return 1;
    class_bounds[0] = class_offsets[0] = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(| : failed)
    for (ptrdiff_t k = 0; k < chunks; k++) {
        Partition p = {bounds[k], bounds[k + 1] - bounds[k], rows, offsets, class + bounds[k], NULL, class + bounds[k]};
        class_bounds[k + 1] = tell_apart(&p, a, b, kinds, steps, chosen + bounds[k], history, n);
        failed |= class_bounds[k + 1] < 0;
    }
    for (ptrdiff_t k = 0; k < chunks && !failed; k++) {
        ptrdiff_t base = class_bounds[k], count = class_bounds[k + 1];
        for (ptrdiff_t i = bounds[k]; i < bounds[k + 1]; i++) class[i] += base;
        for (ptrdiff_t t = 0; t < steps; t++) {
            memset(seen, -1, count * sizeof *seen);
            for (ptrdiff_t c = 0; c < count; c++) {
                int64_t then = history[t * n + bounds[k] + chosen[bounds[k] + c]];
                if (seen[then] < 0) seen[then] = base + c;
                same[t * n + base + c] = seen[then];
            }
        }
        for (ptrdiff_t c = 0; c < count; c++) {
            ptrdiff_t row = chosen[bounds[k] + c] + bounds[k], to = class_offsets[base + c];
            chosen[base + c] = row; /* base is at most the chunk's first row, so nothing that is still needed is lost */
            for (int64_t at = offsets[row]; at < offsets[row + 1]; at++) class_rows[to++] = class[rows[at]];
            class_offsets[base + c + 1] = to;
        }
        class_bounds[k + 1] += base;
    }
    free(history);
    return failed;
}

/* The next piece of a result of many: `count` numbers, if `from` is not NULL copied from there. */
typedef struct {
    int64_t *next, *length;
} Pieces;

static int64_t *piece(Pieces *p, const int64_t *from, ptrdiff_t count)
{
    int64_t *made = p->next;
    if (from) memcpy(made, from, count * sizeof *made);
    *p->length++ = count;
    p->next += count;
    return made;
}

/* rows, offsets, back and back_offsets of the lists of `targets` rows of numbers below n; `entries` in all of them */
static int lists_of(Pieces *p, ptrdiff_t targets, ptrdiff_t n, ptrdiff_t entries, const int64_t *rows, const int64_t *offsets)
{
    int64_t *own = piece(p, rows, entries), *own_offsets = piece(p, offsets, targets + 1), *back = piece(p, NULL, entries);
    return transposed_lists(1, targets, n, own, own_offsets, back, piece(p, NULL, n + 1));
}

/* The lists over classes of n rows (see classes), bounds of chunks, same [steps, classes] and a row of each class -> how many
   classes there are, or -1; class [n] of each row. */
static ptrdiff_t lists_of_classes(Pieces *p, ptrdiff_t threads, ptrdiff_t molecules, const int64_t *sizes, ptrdiff_t n,
                                  const int64_t *rows, const int64_t *offsets, const int64_t *a, const int64_t *b,
                                  ptrdiff_t steps, int64_t *class)
{
    ptrdiff_t kinds = 1, entries = offsets[n], count = -1;
    for (ptrdiff_t i = 0; i < n; i++) kinds = a[i] < kinds ? kinds : a[i] + 1;
    int64_t found, *room = malloc((2 * (molecules + 1) + n + entries + n + 1 + steps * n) * sizeof *room);
    if (!room) return -1;
    int64_t *bounds = room, *own_bounds = bounds + molecules + 1, *chosen = own_bounds + molecules + 1;
    int64_t *own_rows = chosen + n, *own_offsets = own_rows + entries, *same = own_offsets + n + 1;
    chunks(threads, molecules, sizes, bounds, &found);
    if (!classes(threads, n, found, bounds, rows, offsets, a, b, kinds, steps, class, chosen, own_bounds, own_rows, own_offsets,
                 same)) {
        count = own_bounds[found];
        if (lists_of(p, count, count, own_offsets[count], own_rows, own_offsets)) count = -1;
        piece(p, own_bounds, found + 1);
        int64_t *of_steps = piece(p, NULL, steps * (count < 0 ? 0 : count));
        for (ptrdiff_t t = 0; t < steps && count > 0; t++) memcpy(of_steps + t * count, same + t * n, count * sizeof *same);
        piece(p, chosen, count < 0 ? 0 : count);
    }
    free(room);
    return count;
}

/* All that GROVER sums over (models/grover_graph.py), from the bonds that enter each of n atoms and their offsets, of which
   `pairs` follow one another; sizes and counts [molecules] of atoms and bonds; their types -> pieces of out, one after the
   other, and how long each is, lengths [22]: rows, offsets, back, back_offsets, bounds, same and chosen of classes of atoms,
   the same of bonds; rows, offsets, back and back_offsets of the classes of each atom's neighbours and of the bonds that enter
   it. */
int neighbourhood(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t bonds, ptrdiff_t pairs, ptrdiff_t molecules, const int64_t *sizes,
                  const int64_t *counts, const int64_t *src, const int64_t *entering, const int64_t *offsets,
                  const int64_t *atom_type, const int64_t *bond_type, ptrdiff_t atom_steps, ptrdiff_t bond_steps,
                  int64_t *out, int64_t *lengths)
{
    int64_t *room = malloc((n + 5 * bonds + pairs + 1) * sizeof *room);
    if (!room) return 1;
    int64_t *of_atom = room, *of_bond = of_atom + n, *neighbour = of_bond + bonds, *source = neighbour + bonds;
    int64_t *rows = source + bonds, *before_offsets = rows + bonds, *before = before_offsets + bonds + 1;
    Pieces p = {out, lengths};
    for (ptrdiff_t k = 0; k < bonds; k++) neighbour[k] = src[entering[k]], source[k] = atom_type[src[k]];
    following_bonds(bonds, src, entering, offsets, before, before_offsets);
    ptrdiff_t atoms = lists_of_classes(&p, threads, molecules, sizes, n, neighbour, offsets, atom_type, NULL, atom_steps,
                                       of_atom);
    ptrdiff_t others = atoms < 0 ? -1 : lists_of_classes(&p, threads, molecules, counts, bonds, before, before_offsets, source,
                                                         bond_type, bond_steps, of_bond);
    int failed = others < 0;
    for (ptrdiff_t k = 0; k < bonds && !failed; k++) rows[k] = of_atom[neighbour[k]];
    failed = failed || lists_of(&p, n, atoms, bonds, rows, offsets);
    for (ptrdiff_t k = 0; k < bonds && !failed; k++) rows[k] = of_bond[entering[k]];
    failed = failed || lists_of(&p, n, others, bonds, rows, offsets);
    free(room);
    return failed;
}

/* What CMPNN computes in `steps` steps of messages, each state once. A step's atoms are told apart by what they were and by
   the bonds that enter, its bonds by what they were, their source and their reverse; at first, by the types alone.
   `apart`: each bond is itself from the first message on.

   src [bonds], entering bonds of each atom and their offsets [n + 1], types of atoms [n] below `kinds` and of bonds
   -> counts [2 (steps + 1)] of bonds at first, atoms of step 1, bonds of step 1, ...; source and type [bonds] of the first
   bonds; of each step's atoms before [steps + 1, n], the same a step earlier, and rows [steps + 1, bonds] with
   row_offsets [steps + 1, n + 1], the bonds that enter; of each step's bonds origin, reverse and start [steps, bonds]: the
   source, the reverse a step earlier, the same at first; kind [n], the type of the last atoms; and place [n], of each atom
   among them. */
int message_steps(ptrdiff_t threads, ptrdiff_t n, ptrdiff_t bonds, ptrdiff_t steps, ptrdiff_t apart, const int64_t *src,
                  const int64_t *entering, const int64_t *offsets, const int64_t *atom_type, const int64_t *bond_type,
                  ptrdiff_t kinds, int64_t *counts, int64_t *source, int64_t *type, int64_t *before, int64_t *rows,
                  int64_t *row_offsets, int64_t *origin, int64_t *reverse, int64_t *start, int64_t *kind, int64_t *place)
{
    (void)threads;
    ptrdiff_t most = n > bonds ? n : bonds, places = 4;
    while (places < 2 * most) places *= 2;
    int64_t *table = calloc(places + 3 * most + n + 8 * bonds + 1, sizeof *table);
    if (!table) return 1;
    int64_t *next = table + places, *first = next + most, *earlier = first + most, *sorted = earlier + most;
    int64_t *of_atom = sorted + 2 * bonds, *of_bond = of_atom + n; /* side by side, as the pairs number them */
    int64_t *at_first = of_bond + bonds, *pairs = at_first + bonds, *pair_offsets = pairs + 2 * bonds;
    Partition atoms = {0, n, entering, offsets, place, sorted, of_bond}, all = {0, bonds, pairs, pair_offsets, of_bond, sorted, of_atom};
    for (ptrdiff_t e = 0; e < bonds; e++) of_bond[e] = atom_type[src[e]] + kinds * bond_type[e];
    counts[0] = refine(&all, first, next, table, places); /* no pairs yet */
    memcpy(at_first, of_bond, bonds * sizeof *at_first);
    for (ptrdiff_t k = 0; k < counts[0]; k++) source[k] = atom_type[src[first[k]]], type[k] = bond_type[first[k]];
    for (ptrdiff_t e = 0; e < bonds; e++) pairs[2 * e] = src[e], pairs[2 * e + 1] = n + (e ^ 1), pair_offsets[e + 1] = 2 * e + 2;
    memcpy(place, atom_type, n * sizeof *place);
    for (ptrdiff_t t = 0;; t++, counts += 2, before += n, rows += bonds, row_offsets += n + 1) {
        memcpy(earlier, place, n * sizeof *earlier);
        counts[1] = refine(&atoms, first, next, table, places);
        row_offsets[0] = 0;
        for (ptrdiff_t k = 0; k < counts[1]; k++) {
            ptrdiff_t u = first[k], to = row_offsets[k];
            before[k] = earlier[u], kind[k] = atom_type[u];
            for (int64_t at = offsets[u]; at < offsets[u + 1]; at++) rows[to++] = of_bond[entering[at]];
            row_offsets[k + 1] = to;
        }
        if (t == steps) break;
        memcpy(earlier, of_bond, bonds * sizeof *earlier);
        for (ptrdiff_t u = 0; u < n; u++) of_atom[u] = bonds + place[u]; /* no bond's class: a pair's sides stay apart */
        for (ptrdiff_t e = 0; e < bonds && apart; e++) of_bond[e] = e;
        counts[2] = refine(&all, first, next, table, places);
        for (ptrdiff_t k = 0; k < counts[2]; k++, origin++, reverse++, start++) {
            ptrdiff_t e = first[k];
            *origin = place[src[e]], *reverse = earlier[e ^ 1], *start = at_first[e];
        }
        origin += bonds - counts[2], reverse += bonds - counts[2], start += bonds - counts[2];
    }
    free(table);
    return 0;
}
