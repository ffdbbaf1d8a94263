// Bits of H.264 for the fake driver: read, written and moved one by one, since it need not be fast.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
	uint8_t *data;
	size_t bits, room; // room in bytes
} bits_out;

static inline void put(bits_out *w, int n, uint32_t v) {
	for (int i = n - 1; i >= 0; i--, w->bits++) {
		if (w->bits / 8 >= w->room) {
			size_t room = w->room ? 2 * w->room : 4096;
			uint8_t *grown = realloc(w->data, room);
			if (!grown)
				abort();
			memset(grown + w->room, 0, room - w->room);
			w->data = grown;
			w->room = room;
		}
		if (v >> i & 1)
			w->data[w->bits / 8] |= 0x80 >> w->bits % 8;
	}
}

static inline void put_ue(bits_out *w, uint32_t v) {
	int n = 0;
	while ((v + 1) >> (n + 1))
		n++;
	put(w, n, 0);
	put(w, n + 1, v + 1);
}

static inline void put_se(bits_out *w, int v) { put_ue(w, v > 0 ? 2 * (uint32_t)v - 1 : 2 * (uint32_t)-v); }

static inline void put_end(bits_out *w) {
	put(w, 1, 1);
	while (w->bits % 8)
		put(w, 1, 0);
}

typedef struct {
	const uint8_t *data;
	size_t at, end; // in bits
	int bad;
} bits_in;

static inline uint32_t get(bits_in *r, int n) {
	uint32_t v = 0;
	for (int i = 0; i < n; i++, r->at++) {
		if (r->at >= r->end) {
			r->bad = 1;
			return 0;
		}
		v = v << 1 | (r->data[r->at / 8] >> (7 - r->at % 8) & 1);
	}
	return v;
}

static inline uint32_t get_ue(bits_in *r) {
	int n = 0;
	while (!r->bad && n < 32 && !get(r, 1))
		n++;
	return n >= 32 ? (r->bad = 1, 0) : (1u << n) - 1 + get(r, n);
}

static inline int get_se(bits_in *r) {
	uint32_t v = get_ue(r);
	return v & 1 ? (int)(v / 2 + 1) : -(int)(v / 2);
}

static inline void copy_bits(bits_out *w, bits_in r, size_t from, size_t to) {
	for (r.at = from; r.at < to;)
		put(w, 1, get(&r, 1));
}

// unescape removes emulation prevention in place and returns the new length.
static inline size_t unescape(uint8_t *b, size_t n) {
	size_t to = 0;
	int zeros = 0;
	for (size_t i = 0; i < n; i++) {
		if (zeros >= 2 && b[i] == 3) {
			zeros = 0;
			continue;
		}
		zeros = b[i] ? 0 : zeros + 1;
		b[to++] = b[i];
	}
	return to;
}

// escaped writes a NAL unit with start code and emulation prevention and returns its length.
static inline size_t escaped(uint8_t *to, size_t room, const uint8_t *b, size_t n) {
	size_t at = 0;
	int zeros = 0;
	if (room < 3 * n / 2 + 8)
		abort();
	to[at++] = 0;
	to[at++] = 0;
	to[at++] = 0;
	to[at++] = 1;
	for (size_t i = 0; i < n; i++) {
		if (zeros == 2 && b[i] <= 3) {
			to[at++] = 3;
			zeros = 0;
		}
		zeros = b[i] ? 0 : zeros + 1;
		to[at++] = b[i];
	}
	return at;
}
