// A VP8 encoder of libvpx, as small as vpx.go needs it: one call into C per picture.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <vpx/vp8cx.h>
#include <vpx/vpx_encoder.h>

typedef struct {
	vpx_codec_ctx_t ctx;
	vpx_codec_enc_cfg_t cfg;
	vpx_image_t img; // describes the caller's planes, owns none

	// What the last encode made. out belongs to libvpx and is valid until the next call; n is 0 when libvpx
	// dropped the picture to keep the rate.
	uint8_t *out;
	size_t n;
	int key;
} alcove_vp8;

// alcove_vp8_open returns NULL and sets *err when libvpx refuses. The caller closes what it opened.
alcove_vp8 *alcove_vp8_open(unsigned w, unsigned h, unsigned kbps, double fps, int speed, vpx_codec_err_t *err);

// alcove_vp8_rate sets the target rate in kbit/s.
vpx_codec_err_t alcove_vp8_rate(alcove_vp8 *e, unsigned kbps);

// alcove_vp8_encode encodes one I420 picture. pts and duration are in microseconds.
vpx_codec_err_t alcove_vp8_encode(alcove_vp8 *e, uint8_t *y, uint8_t *cb, uint8_t *cr, int y_stride, int c_stride,
	int64_t pts, unsigned long duration, int force_key);

void alcove_vp8_close(alcove_vp8 *e);
