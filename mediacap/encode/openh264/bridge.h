// An H.264 encoder of openh264, as small as openh264.go needs it: one call into C per picture.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <wels/codec_api.h>

typedef struct {
	ISVCEncoder *enc;
	int w, h;

	// What the last encode made: an access unit in Annex B form. n is 0 when there is none. out is valid until the
	// next call.
	uint8_t *out;
	size_t n, room;
	int key;
} alcove_openh264;

// alcove_openh264_open returns NULL and sets *rc when openh264 refuses. The caller closes what it opened.
alcove_openh264 *alcove_openh264_open(int w, int h, double fps, int bps, int level, int *rc);

// alcove_openh264_rate sets the target rate in bit/s.
int alcove_openh264_rate(alcove_openh264 *e, int bps);

// alcove_openh264_encode encodes one I420 picture. ms is its time in milliseconds.
int alcove_openh264_encode(alcove_openh264 *e, uint8_t *y, uint8_t *cb, uint8_t *cr, int y_stride, int c_stride,
	int64_t ms, int force_key);

void alcove_openh264_close(alcove_openh264 *e);
