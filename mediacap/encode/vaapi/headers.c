#include "headers.h"

#include <string.h>

// A writer of bits into a NAL unit without escapes.
typedef struct {
	uint8_t raw[96];
	size_t bits;
} writer;

static void u(writer *w, int n, uint32_t v) {
	for (int i = n - 1; i >= 0; i--, w->bits++)
		if (v >> i & 1)
			w->raw[w->bits / 8] |= 0x80 >> w->bits % 8;
}

static void ue(writer *w, uint32_t v) {
	int n = 0;
	while ((v + 1) >> (n + 1))
		n++;
	u(w, n, 0);
	u(w, n + 1, v + 1);
}

static void se(writer *w, int v) { ue(w, v > 0 ? 2 * (uint32_t)v - 1 : 2 * (uint32_t)-v); }

static void trail(writer *w) {
	u(w, 1, 1);
	w->bits = (w->bits + 7) / 8 * 8;
}

// finish adds start code and escapes (7.4.1.1).
static void finish(alcove_header *out, const writer *w) {
	static const uint8_t start[4] = {0, 0, 0, 1};
	memset(out, 0, sizeof *out);
	memcpy(out->data, start, sizeof start);
	size_t n = sizeof start, escapes = 0;
	int zeros = 0;
	for (size_t i = 0; i < (w->bits + 7) / 8; i++) {
		if (zeros == 2 && w->raw[i] <= 3) {
			out->data[n++] = 3;
			escapes++;
			zeros = 0;
		}
		zeros = w->raw[i] ? 0 : zeros + 1;
		out->data[n++] = w->raw[i];
	}
	out->bits = 8 * (sizeof start + escapes) + w->bits;
}

void alcove_sps(alcove_header *out, unsigned w, unsigned h, unsigned level) {
	writer b = {{0}, 0};
	unsigned mbs_w = (w + 15) / 16, mbs_h = (h + 15) / 16;
	u(&b, 8, 0x67);
	u(&b, 8, 66);   // profile_idc: baseline
	u(&b, 8, 0xc0); // constraint_set0_flag, constraint_set1_flag: constrained baseline
	u(&b, 8, level);
	ue(&b, 0); // seq_parameter_set_id
	ue(&b, ALCOVE_LOG2_MAX_FRAME_NUM - 4);
	ue(&b, 0); // pic_order_cnt_type
	ue(&b, ALCOVE_LOG2_MAX_POC_LSB - 4);
	ue(&b, 1);    // max_num_ref_frames
	u(&b, 1, 0);  // gaps_in_frame_num_value_allowed_flag
	ue(&b, mbs_w - 1);
	ue(&b, mbs_h - 1);
	u(&b, 1, 1); // frame_mbs_only_flag
	u(&b, 1, 1); // direct_8x8_inference_flag
	unsigned right = (16 * mbs_w - w) / 2, bottom = (16 * mbs_h - h) / 2;
	u(&b, 1, right || bottom);
	if (right || bottom) {
		ue(&b, 0);
		ue(&b, right);
		ue(&b, 0);
		ue(&b, bottom);
	}
	u(&b, 1, 1); // vui_parameters_present_flag; section E.1.1 from here
	u(&b, 8, 0); // no aspect ratio, overscan, video signal, chroma location, timing, HRD twice, picture structure
	u(&b, 1, 1); // bitstream_restriction_flag
	u(&b, 1, 1); // motion_vectors_over_pic_boundaries_flag
	ue(&b, 0);   // max_bytes_per_pic_denom: no limit
	ue(&b, 0);   // max_bits_per_mb_denom: no limit
	ue(&b, 16);  // log2_max_mv_length_horizontal
	ue(&b, 16);  // log2_max_mv_length_vertical
	ue(&b, 0);   // max_num_reorder_frames
	ue(&b, 1);   // max_dec_frame_buffering
	trail(&b);
	finish(out, &b);
}

void alcove_pps(alcove_header *out) {
	writer b = {{0}, 0};
	u(&b, 8, 0x68);
	ue(&b, 0);   // pic_parameter_set_id
	ue(&b, 0);   // seq_parameter_set_id
	u(&b, 2, 0); // CAVLC; no bottom field order
	ue(&b, 0);   // num_slice_groups_minus1
	ue(&b, 0);   // num_ref_idx_l0_default_active_minus1
	ue(&b, 0);   // num_ref_idx_l1_default_active_minus1
	u(&b, 3, 0); // no weighted prediction
	se(&b, ALCOVE_PIC_INIT_QP - 26);
	se(&b, 0);   // pic_init_qs_minus26
	se(&b, 0);   // chroma_qp_index_offset
	u(&b, 1, 1); // deblocking_filter_control_present_flag
	u(&b, 1, 0); // constrained_intra_pred_flag
	u(&b, 1, 0); // redundant_pic_cnt_present_flag
	trail(&b);
	finish(out, &b);
}

void alcove_slice(alcove_header *out, int idr, unsigned frame_num, unsigned idr_pic_id, unsigned poc_lsb) {
	writer b = {{0}, 0};
	u(&b, 8, idr ? 0x65 : 0x61);
	ue(&b, 0);           // first_mb_in_slice
	ue(&b, idr ? 2 : 0); // slice_type: I, P
	ue(&b, 0);           // pic_parameter_set_id
	u(&b, ALCOVE_LOG2_MAX_FRAME_NUM, frame_num);
	if (idr)
		ue(&b, idr_pic_id);
	u(&b, ALCOVE_LOG2_MAX_POC_LSB, poc_lsb);
	if (idr) {
		u(&b, 2, 0); // no_output_of_prior_pics_flag, long_term_reference_flag
	} else {
		u(&b, 1, 0); // num_ref_idx_active_override_flag
		u(&b, 1, 0); // ref_pic_list_modification_flag_l0
		u(&b, 1, 0); // adaptive_ref_pic_marking_mode_flag
	}
	se(&b, 0); // slice_qp_delta: the driver's rate control has the last word
	ue(&b, 0); // disable_deblocking_filter_idc
	se(&b, 0); // slice_alpha_c0_offset_div2
	se(&b, 0); // slice_beta_offset_div2
	finish(out, &b);
}
