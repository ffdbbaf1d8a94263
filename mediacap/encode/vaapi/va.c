#include "va.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <va/va_drm.h>
#include <va/va_enc_h264.h>

#include "headers.h"

enum {
	INPUT,
	RECON, // two, written in turn: one is the reference of the other
	SURFACES = RECON + 2,
	MAX_PARAMS = 16, // parameter buffers of one picture
};

struct alcove_va {
	alcove_va_config cfg;
	unsigned w16, h16;
	int fd;
	VADisplay dpy;
	int initialized;
	const char *vendor;
	unsigned packed; // VA_ENC_PACKED_HEADER_*: the headers that we write
	int limits_frames; // the driver takes a largest size of a picture
	VAConfigID config;
	VAContextID context;
	VASurfaceID surfaces[SURFACES];
	int has_surfaces;
	VAImageFormat nv12;
	int derives; // surfaces can be written in place
	VABufferID coded;
	size_t coded_size;
	int syncs_buffers; // vaSyncBuffer works; it takes a limit

	VABufferID params[MAX_PARAMS];
	int n_params;

	uint8_t *staged; // NV12 of w16×h16
	uint8_t *out;
	size_t room;

	// The stream.
	unsigned bps; // that the driver knows; 0: none
	unsigned count; // pictures since the IDR picture
	unsigned idr_pic_id;
	int begun;
	int last; // index in surfaces of the reference
};

static int fail(alcove_va_error *err, const char *step, int status) {
	*err = (alcove_va_error){.step = step, .status = status};
	return -1;
}

#define TRY(fn, ...)                              \
	do {                                          \
		VAStatus status_ = fn(__VA_ARGS__);       \
		if (status_ != VA_STATUS_SUCCESS)         \
			return fail(err, #fn, (int)status_);  \
	} while (0)

// ---- open

static void silent(void *context, const char *message) {
	(void)context;
	(void)message;
}

static int open_display(alcove_va *e, alcove_va_error *err) {
	e->fd = open(e->cfg.node, O_RDWR | O_CLOEXEC);
	if (e->fd < 0) {
		*err = (alcove_va_error){.step = "open render node", .os_error = errno};
		return -1;
	}
	e->dpy = vaGetDisplayDRM(e->fd);
	if (!e->dpy)
		return fail(err, "vaGetDisplayDRM", VA_STATUS_ERROR_INVALID_DISPLAY);
	vaSetErrorCallback(e->dpy, silent, NULL);
	vaSetInfoCallback(e->dpy, silent, NULL);
	int major, minor;
	TRY(vaInitialize, e->dpy, &major, &minor);
	e->initialized = 1;
	e->vendor = vaQueryVendorString(e->dpy);
	return 0;
}

static int has_entrypoint(alcove_va *e, alcove_va_error *err) {
	int n = vaMaxNumEntrypoints(e->dpy), found = 0;
	if (n < 1)
		return fail(err, "vaMaxNumEntrypoints", VA_STATUS_ERROR_OPERATION_FAILED);
	VAEntrypoint *list = calloc((size_t)n, sizeof *list);
	if (!list)
		return fail(err, "list entry points", VA_STATUS_ERROR_ALLOCATION_FAILED);
	VAStatus status = vaQueryConfigEntrypoints(e->dpy, VAProfileH264ConstrainedBaseline, list, &n);
	for (int i = 0; status == VA_STATUS_SUCCESS && i < n; i++)
		found |= list[i] == (VAEntrypoint)e->cfg.entrypoint;
	free(list);
	if (status != VA_STATUS_SUCCESS)
		return fail(err, "vaQueryConfigEntrypoints", status);
	return found ? 0 : fail(err, "find entry point", VA_STATUS_ERROR_UNSUPPORTED_ENTRYPOINT);
}

static int supported(VAConfigAttrib a, uint32_t bits) {
	return a.value != VA_ATTRIB_NOT_SUPPORTED && (a.value & bits) == bits;
}

static int open_config(alcove_va *e, alcove_va_error *err) {
	VAProfile profile = VAProfileH264ConstrainedBaseline;
	VAEntrypoint entrypoint = (VAEntrypoint)e->cfg.entrypoint;
	if (has_entrypoint(e, err))
		return -1;
	VAConfigAttrib a[] = {
		{.type = VAConfigAttribRTFormat},
		{.type = VAConfigAttribRateControl},
		{.type = VAConfigAttribEncPackedHeaders},
		{.type = VAConfigAttribMaxFrameSize},
	};
	TRY(vaGetConfigAttributes, e->dpy, profile, entrypoint, a, 4);
	if (!supported(a[0], VA_RT_FORMAT_YUV420))
		return fail(err, "find 4:2:0 pictures", VA_STATUS_ERROR_UNSUPPORTED_RT_FORMAT);
	if (!supported(a[1], VA_RC_CBR))
		return fail(err, "find constant bit rate", VA_STATUS_ERROR_ATTR_NOT_SUPPORTED);
	// Parameter sets are ours when the driver takes both, since it may refer to one in the other. Without ours it writes
	// them from the same values.
	if (supported(a[2], VA_ENC_PACKED_HEADER_SEQUENCE | VA_ENC_PACKED_HEADER_PICTURE))
		e->packed = a[2].value & (VA_ENC_PACKED_HEADER_SEQUENCE | VA_ENC_PACKED_HEADER_PICTURE | VA_ENC_PACKED_HEADER_SLICE);
	VAConfigAttribValMaxFrameSize limit = {.value = a[3].value};
	e->limits_frames = a[3].value != VA_ATTRIB_NOT_SUPPORTED && limit.bits.max_frame_size;
	VAConfigAttrib want[] = {
		{VAConfigAttribRTFormat, VA_RT_FORMAT_YUV420},
		{VAConfigAttribRateControl, VA_RC_CBR},
		{VAConfigAttribEncPackedHeaders, e->packed},
	};
	TRY(vaCreateConfig, e->dpy, profile, entrypoint, want, e->packed ? 3 : 2, &e->config);
	return 0;
}

static int open_surfaces(alcove_va *e, alcove_va_error *err) {
	VASurfaceAttrib format = {.type = VASurfaceAttribPixelFormat, .flags = VA_SURFACE_ATTRIB_SETTABLE};
	format.value.type = VAGenericValueTypeInteger;
	format.value.value.i = VA_FOURCC_NV12;
	TRY(vaCreateSurfaces, e->dpy, VA_RT_FORMAT_YUV420, e->w16, e->h16, e->surfaces, SURFACES, &format, 1);
	e->has_surfaces = 1;
	TRY(vaCreateContext, e->dpy, e->config, (int)e->w16, (int)e->h16, VA_PROGRESSIVE, e->surfaces, SURFACES, &e->context);
	// No picture is larger than its samples.
	e->coded_size = (size_t)e->w16 * e->h16 * 3 / 2 + 65536;
	TRY(vaCreateBuffer, e->dpy, e->context, VAEncCodedBufferType, (unsigned)e->coded_size, 1, NULL, &e->coded);
	return 0;
}

// open_upload finds out how pictures get into a surface.
static int open_upload(alcove_va *e, alcove_va_error *err) {
	VAImage image;
	if (vaDeriveImage(e->dpy, e->surfaces[INPUT], &image) == VA_STATUS_SUCCESS) {
		e->derives = image.format.fourcc == VA_FOURCC_NV12;
		VAStatus status = vaDestroyImage(e->dpy, image.image_id);
		if (status != VA_STATUS_SUCCESS)
			return fail(err, "vaDestroyImage", status);
		if (e->derives)
			return 0;
	}
	int n = vaMaxNumImageFormats(e->dpy), found = 0;
	if (n < 1)
		return fail(err, "vaMaxNumImageFormats", VA_STATUS_ERROR_OPERATION_FAILED);
	VAImageFormat *list = calloc((size_t)n, sizeof *list);
	if (!list)
		return fail(err, "list image formats", VA_STATUS_ERROR_ALLOCATION_FAILED);
	VAStatus status = vaQueryImageFormats(e->dpy, list, &n);
	for (int i = 0; status == VA_STATUS_SUCCESS && i < n; i++)
		if (list[i].fourcc == VA_FOURCC_NV12) {
			e->nv12 = list[i];
			found = 1;
		}
	free(list);
	if (status != VA_STATUS_SUCCESS)
		return fail(err, "vaQueryImageFormats", status);
	return found ? 0 : fail(err, "find NV12 images", VA_STATUS_ERROR_INVALID_IMAGE_FORMAT);
}

alcove_va *alcove_va_open(const alcove_va_config *cfg, alcove_va_error *err) {
	alcove_va *e = calloc(1, sizeof *e);
	if (!e) {
		fail(err, "open encoder", VA_STATUS_ERROR_ALLOCATION_FAILED);
		return NULL;
	}
	e->cfg = *cfg;
	e->w16 = (cfg->w + 15) / 16 * 16;
	e->h16 = (cfg->h + 15) / 16 * 16;
	e->fd = -1;
	e->config = VA_INVALID_ID;
	e->context = VA_INVALID_ID;
	e->coded = VA_INVALID_ID;
	e->syncs_buffers = 1;
	e->staged = malloc((size_t)e->w16 * e->h16 * 3 / 2);
	if (!e->staged) {
		fail(err, "open encoder", VA_STATUS_ERROR_ALLOCATION_FAILED);
	} else if (!open_display(e, err) && !open_config(e, err) && !open_surfaces(e, err) && !open_upload(e, err)) {
		e->cfg.node = NULL; // the caller's memory
		return e;
	}
	alcove_va_close(e);
	return NULL;
}

void alcove_va_close(alcove_va *e) {
	if (e->initialized) {
		for (int i = 0; i < e->n_params; i++)
			vaDestroyBuffer(e->dpy, e->params[i]);
		if (e->coded != VA_INVALID_ID)
			vaDestroyBuffer(e->dpy, e->coded);
		if (e->context != VA_INVALID_ID)
			vaDestroyContext(e->dpy, e->context);
		if (e->has_surfaces)
			vaDestroySurfaces(e->dpy, e->surfaces, SURFACES);
		if (e->config != VA_INVALID_ID)
			vaDestroyConfig(e->dpy, e->config);
	}
	if (e->dpy)
		vaTerminate(e->dpy); // also frees a display that was never initialized
	if (e->fd >= 0)
		close(e->fd);
	free(e->staged);
	free(e->out);
	free(e);
}

// ---- pictures in

// The staged picture is as large as the surface: what the cropping takes away repeats the edge, which costs the fewest
// bits.
void alcove_va_stage(alcove_va *e, const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int y_stride, int c_stride) {
	unsigned w = e->cfg.w, h = e->cfg.h, w16 = e->w16, h16 = e->h16;
	uint8_t *to = e->staged;
	for (unsigned i = 0; i < h16; i++, to += w16) {
		memcpy(to, y, w);
		memset(to + w, y[w - 1], w16 - w);
		y += i < h - 1 ? y_stride : 0;
	}
	for (unsigned i = 0; i < h16 / 2; i++, to += w16) {
		for (unsigned x = 0; x < w / 2; x++) {
			to[2 * x] = cb[x];
			to[2 * x + 1] = cr[x];
		}
		for (unsigned x = w; x < w16; x++)
			to[x] = to[x - 2];
		cb += i < h / 2 - 1 ? c_stride : 0;
		cr += i < h / 2 - 1 ? c_stride : 0;
	}
}

static void copy_rows(uint8_t *to, size_t pitch, const uint8_t *from, unsigned w, unsigned rows) {
	for (unsigned i = 0; i < rows; i++)
		memcpy(to + i * pitch, from + (size_t)i * w, w);
}

// fill copies the staged picture into an image.
static int fill(alcove_va *e, const VAImage *image, alcove_va_error *err) {
	unsigned w = e->w16, h = e->h16;
	size_t y_end = (size_t)image->offsets[0] + (size_t)(h - 1) * image->pitches[0] + w;
	size_t c_end = (size_t)image->offsets[1] + (size_t)(h / 2 - 1) * image->pitches[1] + w;
	if (image->format.fourcc != VA_FOURCC_NV12 || image->pitches[0] < w || image->pitches[1] < w ||
		y_end > image->data_size || c_end > image->data_size)
		return fail(err, "check image", VA_STATUS_ERROR_INVALID_IMAGE_FORMAT);
	void *at;
	TRY(vaMapBuffer, e->dpy, image->buf, &at);
	copy_rows((uint8_t *)at + image->offsets[0], image->pitches[0], e->staged, w, h);
	copy_rows((uint8_t *)at + image->offsets[1], image->pitches[1], e->staged + (size_t)w * h, w, h / 2);
	TRY(vaUnmapBuffer, e->dpy, image->buf);
	return 0;
}

static int upload(alcove_va *e, alcove_va_error *err) {
	VAImage image;
	if (e->derives)
		TRY(vaDeriveImage, e->dpy, e->surfaces[INPUT], &image);
	else
		TRY(vaCreateImage, e->dpy, &e->nv12, (int)e->w16, (int)e->h16, &image);
	int rc = fill(e, &image, err);
	if (!rc && !e->derives) {
		VAStatus status = vaPutImage(e->dpy, e->surfaces[INPUT], image.image_id, 0, 0, e->w16, e->h16, 0, 0, e->w16, e->h16);
		if (status != VA_STATUS_SUCCESS)
			rc = fail(err, "vaPutImage", status);
	}
	VAStatus status = vaDestroyImage(e->dpy, image.image_id);
	if (!rc && status != VA_STATUS_SUCCESS)
		rc = fail(err, "vaDestroyImage", status);
	return rc;
}

// ---- parameters

static int param(alcove_va *e, VABufferType type, const void *data, size_t n, alcove_va_error *err) {
	if (e->n_params == MAX_PARAMS)
		return fail(err, "keep parameters", VA_STATUS_ERROR_MAX_NUM_EXCEEDED);
	// libva's prototype lacks const; it copies.
	TRY(vaCreateBuffer, e->dpy, e->context, type, (unsigned)n, 1, (void *)data, &e->params[e->n_params]);
	e->n_params++;
	return 0;
}

static int misc(alcove_va *e, VAEncMiscParameterType type, const void *data, size_t n, alcove_va_error *err) {
	struct {
		VAEncMiscParameterBuffer head;
		uint8_t body[sizeof(VAEncMiscParameterRateControl) + sizeof(VAEncMiscParameterHRD)];
	} b;
	memset(&b, 0, sizeof b);
	b.head.type = type;
	memcpy(b.head.data, data, n);
	return param(e, VAEncMiscParameterBufferType, &b, sizeof b.head + n, err);
}

static int packed(alcove_va *e, uint32_t type, const alcove_header *h, alcove_va_error *err) {
	VAEncPackedHeaderParameterBuffer p;
	memset(&p, 0, sizeof p);
	p.type = type;
	p.bit_length = (uint32_t)h->bits;
	p.has_emulation_bytes = 1;
	return param(e, VAEncPackedHeaderParameterBufferType, &p, sizeof p, err) ||
		param(e, VAEncPackedHeaderDataBufferType, h->data, (h->bits + 7) / 8, err);
}

static int sequence(alcove_va *e, alcove_va_error *err) {
	VAEncSequenceParameterBufferH264 s;
	memset(&s, 0, sizeof s);
	s.level_idc = (uint8_t)e->cfg.level;
	// Nobody but idr_pic_flag says when an IDR picture comes; a period that is never reached keeps drivers from their own.
	s.intra_period = s.intra_idr_period = 1 << 16;
	s.ip_period = 1;
	s.bits_per_second = e->bps;
	s.max_num_ref_frames = 1;
	s.picture_width_in_mbs = (uint16_t)(e->w16 / 16);
	s.picture_height_in_mbs = (uint16_t)(e->h16 / 16);
	s.seq_fields.bits.chroma_format_idc = 1;
	s.seq_fields.bits.frame_mbs_only_flag = 1;
	s.seq_fields.bits.direct_8x8_inference_flag = 1;
	s.seq_fields.bits.log2_max_frame_num_minus4 = ALCOVE_LOG2_MAX_FRAME_NUM - 4;
	s.seq_fields.bits.log2_max_pic_order_cnt_lsb_minus4 = ALCOVE_LOG2_MAX_POC_LSB - 4;
	s.frame_crop_right_offset = (e->w16 - e->cfg.w) / 2;
	s.frame_crop_bottom_offset = (e->h16 - e->cfg.h) / 2;
	s.frame_cropping_flag = s.frame_crop_right_offset || s.frame_crop_bottom_offset;
	s.vui_parameters_present_flag = 1;
	s.vui_fields.bits.bitstream_restriction_flag = 1;
	s.vui_fields.bits.motion_vectors_over_pic_boundaries_flag = 1;
	s.vui_fields.bits.log2_max_mv_length_horizontal = 16;
	s.vui_fields.bits.log2_max_mv_length_vertical = 16;
	return param(e, VAEncSequenceParameterBufferType, &s, sizeof s, err);
}

// rate_control tells the driver rate, buffer and frame rate: with each IDR picture and when the rate changes.
static int rate_control(alcove_va *e, alcove_va_error *err) {
	VAEncMiscParameterRateControl rc;
	memset(&rc, 0, sizeof rc);
	rc.bits_per_second = e->bps;
	rc.target_percentage = 100;
	rc.window_size = 500; // ms
	rc.rc_flags.bits.disable_frame_skip = 1;
	rc.rc_flags.bits.disable_bit_stuffing = 1;
	VAEncMiscParameterHRD hrd = {.initial_buffer_fullness = e->bps / 4 * 3, .buffer_size = e->bps}; // one second
	VAEncMiscParameterFrameRate fps;
	memset(&fps, 0, sizeof fps);
	fps.framerate = e->cfg.fps_den << 16 | e->cfg.fps_num;
	VAEncMiscParameterBufferMaxFrameSize limit;
	memset(&limit, 0, sizeof limit);
	limit.max_frame_size = e->bps / 2; // half a second of the line
	return misc(e, VAEncMiscParameterTypeRateControl, &rc, sizeof rc, err) ||
		misc(e, VAEncMiscParameterTypeHRD, &hrd, sizeof hrd, err) ||
		misc(e, VAEncMiscParameterTypeFrameRate, &fps, sizeof fps, err) ||
		(e->limits_frames && misc(e, VAEncMiscParameterTypeMaxFrameSize, &limit, sizeof limit, err));
}

static void no_pictures(VAPictureH264 *p, int n) {
	for (int i = 0; i < n; i++)
		p[i] = (VAPictureH264){.picture_id = VA_INVALID_SURFACE, .flags = VA_PICTURE_H264_INVALID};
}

static unsigned frame_num(unsigned count) { return count % (1u << ALCOVE_LOG2_MAX_FRAME_NUM); }
static unsigned poc_lsb(unsigned count) { return 2 * count % (1u << ALCOVE_LOG2_MAX_POC_LSB); }

static VAPictureH264 reference(const alcove_va *e) {
	int32_t poc = (int32_t)(2 * (e->count - 1));
	return (VAPictureH264){.picture_id = e->surfaces[e->last], .frame_idx = frame_num(e->count - 1),
		.flags = VA_PICTURE_H264_SHORT_TERM_REFERENCE, .TopFieldOrderCnt = poc, .BottomFieldOrderCnt = poc};
}

static int picture(alcove_va *e, int idr, int recon, alcove_va_error *err) {
	VAEncPictureParameterBufferH264 p;
	memset(&p, 0, sizeof p);
	int32_t poc = (int32_t)(2 * e->count);
	p.CurrPic = (VAPictureH264){.picture_id = e->surfaces[recon], .frame_idx = frame_num(e->count),
		.TopFieldOrderCnt = poc, .BottomFieldOrderCnt = poc};
	no_pictures(p.ReferenceFrames, 16);
	if (!idr)
		p.ReferenceFrames[0] = reference(e);
	p.coded_buf = e->coded;
	p.frame_num = (uint16_t)frame_num(e->count);
	p.pic_init_qp = ALCOVE_PIC_INIT_QP;
	p.pic_fields.bits.idr_pic_flag = (uint32_t)idr;
	p.pic_fields.bits.reference_pic_flag = 1;
	p.pic_fields.bits.deblocking_filter_control_present_flag = 1;
	return param(e, VAEncPictureParameterBufferType, &p, sizeof p, err);
}

static int slice(alcove_va *e, int idr, alcove_va_error *err) {
	VAEncSliceParameterBufferH264 s;
	memset(&s, 0, sizeof s);
	s.num_macroblocks = e->w16 / 16 * (e->h16 / 16);
	s.macroblock_info = VA_INVALID_ID;
	s.slice_type = idr ? 2 : 0;
	s.idr_pic_id = (uint16_t)e->idr_pic_id;
	s.pic_order_cnt_lsb = (uint16_t)poc_lsb(e->count);
	no_pictures(s.RefPicList0, 32);
	no_pictures(s.RefPicList1, 32);
	if (!idr)
		s.RefPicList0[0] = reference(e);
	return param(e, VAEncSliceParameterBufferType, &s, sizeof s, err);
}

static int parameters(alcove_va *e, int idr, int new_rate, int recon, alcove_va_error *err) {
	alcove_header h;
	if (idr && sequence(e, err))
		return -1;
	if ((idr || new_rate) && rate_control(e, err))
		return -1;
	if (idr && e->packed) {
		alcove_sps(&h, e->cfg.w, e->cfg.h, e->cfg.level);
		if (packed(e, VAEncPackedHeaderSequence, &h, err))
			return -1;
	}
	if (picture(e, idr, recon, err))
		return -1;
	if (idr && e->packed) {
		alcove_pps(&h);
		if (packed(e, VAEncPackedHeaderPicture, &h, err))
			return -1;
	}
	if (e->packed & VA_ENC_PACKED_HEADER_SLICE) {
		alcove_slice(&h, idr, frame_num(e->count), e->idr_pic_id, poc_lsb(e->count));
		if (packed(e, VAEncPackedHeaderSlice, &h, err))
			return -1;
	}
	return slice(e, idr, err);
}

// ---- pictures out

static int wait_coded(alcove_va *e, alcove_va_error *err) {
	if (e->syncs_buffers) {
		VAStatus status = vaSyncBuffer(e->dpy, e->coded, (uint64_t)e->cfg.timeout_ms * 1000000);
		if (status == VA_STATUS_SUCCESS)
			return 0;
		if (status != VA_STATUS_ERROR_UNIMPLEMENTED)
			return fail(err, "vaSyncBuffer", status);
		e->syncs_buffers = 0;
	}
	TRY(vaSyncSurface, e->dpy, e->surfaces[INPUT]);
	return 0;
}

static int append(alcove_va *e, size_t at, const VACodedBufferSegment *s, alcove_va_error *err) {
	if (s->status & (VA_CODED_BUF_STATUS_BAD_BITSTREAM | VA_CODED_BUF_STATUS_SLICE_OVERFLOW_MASK))
		return fail(err, "check coded buffer", VA_STATUS_ERROR_ENCODING_ERROR);
	if (s->size > e->coded_size - at)
		return fail(err, "check coded buffer", VA_STATUS_ERROR_NOT_ENOUGH_BUFFER);
	if (at + s->size > e->room) {
		size_t room = 2 * (at + s->size);
		uint8_t *grown = realloc(e->out, room);
		if (!grown)
			return fail(err, "keep coded buffer", VA_STATUS_ERROR_ALLOCATION_FAILED);
		e->out = grown;
		e->room = room;
	}
	memcpy(e->out + at, s->buf, s->size);
	return 0;
}

static int download(alcove_va *e, size_t *n, alcove_va_error *err) {
	VACodedBufferSegment *s;
	TRY(vaMapBuffer, e->dpy, e->coded, (void **)&s);
	int rc = 0;
	for (*n = 0; s && !rc; s = s->next) {
		rc = append(e, *n, s, err);
		*n += rc ? 0 : s->size;
	}
	VAStatus status = vaUnmapBuffer(e->dpy, e->coded);
	if (!rc && status != VA_STATUS_SUCCESS)
		rc = fail(err, "vaUnmapBuffer", status);
	return rc;
}

// drop_params destroys the parameter buffers, which vaRenderPicture leaves to the caller.
static int drop_params(alcove_va *e, alcove_va_error *err) {
	while (e->n_params > 0)
		TRY(vaDestroyBuffer, e->dpy, e->params[--e->n_params]);
	return 0;
}

static int submit(alcove_va *e, int idr, int new_rate, int recon, alcove_va_error *err) {
	TRY(vaBeginPicture, e->dpy, e->context, e->surfaces[INPUT]);
	if (parameters(e, idr, new_rate, recon, err)) {
		vaEndPicture(e->dpy, e->context); // else the driver may keep the picture open
		return -1;
	}
	VAStatus status = vaRenderPicture(e->dpy, e->context, e->params, e->n_params);
	VAStatus end = vaEndPicture(e->dpy, e->context);
	if (status != VA_STATUS_SUCCESS)
		return fail(err, "vaRenderPicture", status);
	if (end != VA_STATUS_SUCCESS)
		return fail(err, "vaEndPicture", end);
	return 0;
}

int alcove_va_encode(alcove_va *e, unsigned bps, int force_key, alcove_va_result *out, alcove_va_error *err) {
	int idr = force_key || !e->begun, new_rate = bps != e->bps;
	int recon = e->last == RECON ? RECON + 1 : RECON;
	size_t n = 0;
	e->bps = bps;
	if (idr) {
		e->count = 0;
		e->idr_pic_id ^= 1; // two IDR pictures in a row must differ (7.4.3)
	}
	if (upload(e, err) || submit(e, idr, new_rate, recon, err) || wait_coded(e, err) || download(e, &n, err) || drop_params(e, err))
		return -1;
	*out = (alcove_va_result){.unit = e->out, .n = n, .key = idr};
	if (n == 0) {
		// The picture was dropped, so what recon holds is unknown: nothing may refer to it.
		e->begun = 0;
		return 0;
	}
	e->begun = 1;
	e->last = recon;
	e->count++;
	return 0;
}

const char *alcove_va_vendor(const alcove_va *e) { return e->vendor ? e->vendor : "unnamed driver"; }

int alcove_va_packs(const alcove_va *e) { return e->packed != 0; }

const char *alcove_va_error_text(const alcove_va_error *err) {
	return err->os_error ? strerror(err->os_error) : vaErrorStr(err->status);
}
