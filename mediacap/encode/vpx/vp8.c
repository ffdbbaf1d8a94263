#include "vp8.h"

// Rate control of a live conversation: a buffer of one second, filled to 600 ms, as libwebrtc sets it.
static void configure(vpx_codec_enc_cfg_t *cfg, unsigned w, unsigned h, unsigned kbps) {
	cfg->g_w = w;
	cfg->g_h = h;
	cfg->g_threads = 1;
	cfg->g_timebase.num = 1;
	cfg->g_timebase.den = 1000000; // presentation times are microseconds
	cfg->g_error_resilient = 0;
	cfg->g_pass = VPX_RC_ONE_PASS;
	cfg->g_lag_in_frames = 0;
	cfg->rc_end_usage = VPX_CBR;
	cfg->rc_target_bitrate = kbps;
	cfg->rc_dropframe_thresh = 30;
	cfg->rc_resize_allowed = 0;
	cfg->rc_min_quantizer = 2;
	cfg->rc_max_quantizer = 56;
	cfg->rc_undershoot_pct = 100;
	cfg->rc_overshoot_pct = 15;
	cfg->rc_buf_initial_sz = 500;
	cfg->rc_buf_optimal_sz = 600;
	cfg->rc_buf_sz = 1000;
	cfg->kf_mode = VPX_KF_DISABLED; // the caller says when
}

// A key frame may take as much as half of the optimal buffer holds, in percent of one frame's share.
static unsigned key_frame_limit(double fps) {
	unsigned pct = (unsigned)(600 * 0.5 * fps / 10);
	return pct < 300 ? 300 : pct;
}

alcove_vp8 *alcove_vp8_open(unsigned w, unsigned h, unsigned kbps, double fps, int speed, vpx_codec_err_t *err) {
	alcove_vp8 *e = calloc(1, sizeof *e);
	if (!e) {
		*err = VPX_CODEC_MEM_ERROR;
		return NULL;
	}
	*err = vpx_codec_enc_config_default(vpx_codec_vp8_cx(), &e->cfg, 0);
	if (*err) {
		free(e);
		return NULL;
	}
	configure(&e->cfg, w, h, kbps);
	*err = vpx_codec_enc_init(&e->ctx, vpx_codec_vp8_cx(), &e->cfg, 0);
	if (*err) {
		free(e);
		return NULL;
	}
	if ((*err = vpx_codec_control(&e->ctx, VP8E_SET_CPUUSED, speed)) ||
		(*err = vpx_codec_control(&e->ctx, VP8E_SET_STATIC_THRESHOLD, 1)) ||
		(*err = vpx_codec_control(&e->ctx, VP8E_SET_TOKEN_PARTITIONS, VP8_ONE_TOKENPARTITION)) ||
		(*err = vpx_codec_control(&e->ctx, VP8E_SET_MAX_INTRA_BITRATE_PCT, key_frame_limit(fps)))) {
		alcove_vp8_close(e);
		return NULL;
	}
	// The planes are the caller's and change with each picture; wrap needs an address to compute offsets.
	if (!vpx_img_wrap(&e->img, VPX_IMG_FMT_I420, w, h, 1, (unsigned char *)e)) {
		alcove_vp8_close(e);
		*err = VPX_CODEC_INVALID_PARAM;
		return NULL;
	}
	e->img.planes[0] = e->img.planes[1] = e->img.planes[2] = e->img.img_data = NULL;
	return e;
}

vpx_codec_err_t alcove_vp8_rate(alcove_vp8 *e, unsigned kbps) {
	e->cfg.rc_target_bitrate = kbps;
	return vpx_codec_enc_config_set(&e->ctx, &e->cfg);
}

vpx_codec_err_t alcove_vp8_encode(alcove_vp8 *e, uint8_t *y, uint8_t *cb, uint8_t *cr, int y_stride, int c_stride,
	int64_t pts, unsigned long duration, int force_key) {
	e->img.planes[0] = y;
	e->img.planes[1] = cb;
	e->img.planes[2] = cr;
	e->img.stride[0] = y_stride;
	e->img.stride[1] = e->img.stride[2] = c_stride;
	vpx_codec_err_t err = vpx_codec_encode(&e->ctx, &e->img, pts, duration, force_key ? VPX_EFLAG_FORCE_KF : 0, VPX_DL_REALTIME);
	e->img.planes[0] = e->img.planes[1] = e->img.planes[2] = NULL;
	e->out = NULL;
	e->n = 0;
	e->key = 0;
	if (err)
		return err;
	vpx_codec_iter_t iter = NULL;
	const vpx_codec_cx_pkt_t *pkt;
	// Without output partitions there is at most one frame packet per picture (vpx_encoder.h).
	while ((pkt = vpx_codec_get_cx_data(&e->ctx, &iter))) {
		if (pkt->kind != VPX_CODEC_CX_FRAME_PKT)
			continue;
		e->out = pkt->data.frame.buf;
		e->n = pkt->data.frame.sz;
		e->key = (pkt->data.frame.flags & VPX_FRAME_IS_KEY) != 0;
	}
	return VPX_CODEC_OK;
}

void alcove_vp8_close(alcove_vp8 *e) {
	vpx_codec_destroy(&e->ctx);
	free(e);
}
