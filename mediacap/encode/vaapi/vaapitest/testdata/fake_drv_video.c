// A VA-API driver without hardware: openh264 encodes what is in the surfaces, and the headers in front of its slice data
// are those that the application packed, or that this driver writes from the application's parameters, as real drivers
// of the two kinds do. So what comes out decodes exactly when the application told the driver the truth.
//
// It holds the application to the contract of va_enc_h264.h and fails a picture that breaks it, and it is scripted by
// the environment, read when the driver is initialized:
//
//	FAKE_VA_LOG=path          one line for each thing that the driver was told, and what was left at the end
//	FAKE_VA_HEADERS=app       the application packs the headers (default: the driver writes them)
//	FAKE_VA_NUMBERING=5       the driver's own slice headers say 5 and 7, not 0 and 2
//	FAKE_VA_ENTRYPOINTS=lp    only the low-power entry point; both, none (default: only the other)
//	FAKE_VA_INIT=fail         the driver does not start
//	FAKE_VA_CONFIG=busy       no encoder is free
//	FAKE_VA_CBR=no            no constant bit rate, as without the HuC firmware
//	FAKE_VA_DERIVE=no         surfaces cannot be mapped in place
//	FAKE_VA_SYNC_BUFFER=no    an old driver: no wait with a limit
//	FAKE_VA_FAIL_AT=n         picture n (from 0, counted from this start of the driver) fails; so do all later ones
//	FAKE_VA_HANG_AT=n         picture n is never done (FAKE_VA_HANG_MS, default 1 hour)
//	FAKE_VA_EMPTY_AT=n        picture n has no output
//	FAKE_VA_DAMAGE_AT=n       picture n has a wrong frame_num
//	FAKE_VA_FAIL=Function:n   the n-th call (from 1) of vaFunction fails
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <va/va_backend.h>
#include <va/va_enc_h264.h>
#include <wels/codec_api.h>

#include "bits.h"

enum { CONFIG, CONTEXT, SURFACE, BUFFER, IMAGE, KINDS };
static const char *const kinds[KINDS] = {"configs", "contexts", "surfaces", "buffers", "images"};

typedef struct object {
	int kind;
	VAGenericID id;
	struct object *next;
	// config
	VAEntrypoint entrypoint;
	uint32_t packed;
	// context, surface, image
	int w, h;
	// surface: NV12; buffer: its content. An image's buffer has none: it is the surface's.
	uint8_t *data;
	size_t size;
	struct object *of; // of an image's buffer: the surface that it was derived from
	VABufferType type;
	VAImage image;
	int mapped;
} object;

typedef struct {
	FILE *log;
	bool app, derive, sync_buffer, busy, cbr;
	int numbering;
	long fail_at, hang_at, hang_ms, empty_at, damage_at;
	bool slice, lp;
	char fail_call[64];
	int fail_nth;

	object *objects;
	VAGenericID next_id;

	// The picture between begin and end.
	object *context, *input;
	VAEncSequenceParameterBufferH264 seq;
	VAEncPictureParameterBufferH264 pic;
	VAEncSliceParameterBufferH264 slice_param;
	bool has_seq, has_pic, has_slice;
	uint8_t header[3][256]; // packed by the application: sequence, picture, slice
	size_t header_bits[3];
	int packed_type;
	uint32_t packed_bits;
	bool packed_deblocking; // deblocking_filter_control_present_flag of the packed parameter set

	// The stream.
	ISVCEncoder *enc;
	int enc_w, enc_h;
	uint32_t bps, fps_num, fps_den;
	uint32_t last_frame_num;
	VASurfaceID last_recon;
	bool begun;
	long pictures;
	uint8_t *i420;
	VACodedBufferSegment segment;
} fake;

static fake *of(VADriverContextP ctx) { return ctx->pDriverData; }

static void say(fake *f, const char *format, ...) {
	if (!f->log)
		return;
	va_list args;
	va_start(args, format);
	vfprintf(f->log, format, args);
	va_end(args);
	fputc('\n', f->log);
	fflush(f->log);
}

// scripted says whether this call is to fail.
static bool scripted(fake *f, const char *name) {
	return f->fail_nth > 0 && !strcmp(name, f->fail_call) && --f->fail_nth == 0;
}

#define ENTER(name)                                \
	fake *f = of(ctx);                             \
	if (scripted(f, name)) {                       \
		say(f, "fails %s", name);                  \
		return VA_STATUS_ERROR_OPERATION_FAILED;   \
	}

// ---- objects

static object *add(fake *f, int kind) {
	object *o = calloc(1, sizeof *o);
	if (!o)
		abort();
	o->kind = kind;
	o->id = ++f->next_id;
	o->next = f->objects;
	f->objects = o;
	return o;
}

static object *find(fake *f, int kind, VAGenericID id) {
	for (object *o = f->objects; o; o = o->next)
		if (o->kind == kind && o->id == id)
			return o;
	return NULL;
}

static VAStatus drop(fake *f, int kind, VAGenericID id, VAStatus none) {
	for (object **p = &f->objects; *p; p = &(*p)->next)
		if ((*p)->kind == kind && (*p)->id == id) {
			object *o = *p;
			if (o->mapped)
				say(f, "contract: object %u destroyed while mapped", o->id);
			*p = o->next;
			free(o->data);
			free(o);
			return VA_STATUS_SUCCESS;
		}
	say(f, "contract: destroys %s that is none", kinds[kind]);
	return none;
}

static VAStatus unimplemented(void) { return VA_STATUS_ERROR_UNIMPLEMENTED; }

// ---- configuration

static VAStatus QueryConfigProfiles(VADriverContextP ctx, VAProfile *list, int *n) {
	ENTER("QueryConfigProfiles");
	list[0] = VAProfileH264ConstrainedBaseline;
	list[1] = VAProfileH264Main;
	*n = 2;
	return VA_STATUS_SUCCESS;
}

static VAStatus QueryConfigEntrypoints(VADriverContextP ctx, VAProfile profile, VAEntrypoint *list, int *n) {
	ENTER("QueryConfigEntrypoints");
	(void)profile;
	*n = 0;
	if (f->slice)
		list[(*n)++] = VAEntrypointEncSlice;
	if (f->lp)
		list[(*n)++] = VAEntrypointEncSliceLP;
	return VA_STATUS_SUCCESS;
}

static uint32_t attribute(fake *f, VAConfigAttribType type) {
	switch (type) {
	case VAConfigAttribRTFormat:
		return VA_RT_FORMAT_YUV420;
	case VAConfigAttribRateControl:
		return f->cbr ? VA_RC_CBR | VA_RC_VBR | VA_RC_CQP : VA_RC_CQP;
	case VAConfigAttribEncPackedHeaders:
		return f->app ? VA_ENC_PACKED_HEADER_SEQUENCE | VA_ENC_PACKED_HEADER_PICTURE | VA_ENC_PACKED_HEADER_SLICE : VA_ENC_PACKED_HEADER_NONE;
	case VAConfigAttribEncMaxRefFrames:
		return 1;
	case VAConfigAttribEncMaxSlices:
		return 1;
	case VAConfigAttribMaxPictureWidth:
	case VAConfigAttribMaxPictureHeight:
		return 4096;
	case VAConfigAttribMaxFrameSize:
		return 1;
	default:
		return VA_ATTRIB_NOT_SUPPORTED;
	}
}

static VAStatus GetConfigAttributes(VADriverContextP ctx, VAProfile profile, VAEntrypoint entrypoint, VAConfigAttrib *list, int n) {
	ENTER("GetConfigAttributes");
	(void)profile;
	(void)entrypoint;
	for (int i = 0; i < n; i++)
		list[i].value = attribute(f, list[i].type);
	return VA_STATUS_SUCCESS;
}

static VAStatus CreateConfig(VADriverContextP ctx, VAProfile profile, VAEntrypoint entrypoint, VAConfigAttrib *list, int n, VAConfigID *id) {
	ENTER("CreateConfig");
	if (f->busy)
		return VA_STATUS_ERROR_HW_BUSY;
	if (profile != VAProfileH264ConstrainedBaseline)
		return VA_STATUS_ERROR_UNSUPPORTED_PROFILE;
	if (!(entrypoint == VAEntrypointEncSlice && f->slice) && !(entrypoint == VAEntrypointEncSliceLP && f->lp))
		return VA_STATUS_ERROR_UNSUPPORTED_ENTRYPOINT;
	uint32_t rc = 0, packed = 0;
	for (int i = 0; i < n; i++) {
		if ((list[i].value & attribute(f, list[i].type)) != list[i].value)
			return VA_STATUS_ERROR_ATTR_NOT_SUPPORTED;
		if (list[i].type == VAConfigAttribRateControl)
			rc = list[i].value;
		if (list[i].type == VAConfigAttribEncPackedHeaders)
			packed = list[i].value;
	}
	object *o = add(f, CONFIG);
	o->entrypoint = entrypoint;
	o->packed = packed;
	*id = o->id;
	say(f, "config entrypoint=%d rc=%u packed=%u", entrypoint, rc, packed);
	return VA_STATUS_SUCCESS;
}

static VAStatus DestroyConfig(VADriverContextP ctx, VAConfigID id) {
	return drop(of(ctx), CONFIG, id, VA_STATUS_ERROR_INVALID_CONFIG);
}

static VAStatus QueryConfigAttributes(VADriverContextP ctx, VAConfigID id, VAProfile *profile, VAEntrypoint *entrypoint, VAConfigAttrib *list, int *n) {
	ENTER("QueryConfigAttributes");
	object *o = find(f, CONFIG, id);
	if (!o)
		return VA_STATUS_ERROR_INVALID_CONFIG;
	*profile = VAProfileH264ConstrainedBaseline;
	*entrypoint = o->entrypoint;
	list[0] = (VAConfigAttrib){VAConfigAttribRTFormat, VA_RT_FORMAT_YUV420};
	*n = 1;
	return VA_STATUS_SUCCESS;
}

// ---- surfaces and images

static VAStatus QuerySurfaceAttributes(VADriverContextP ctx, VAConfigID config, VASurfaceAttrib *list, unsigned *n) {
	ENTER("QuerySurfaceAttributes");
	(void)config;
	static const struct { VASurfaceAttribType type; int value; } all[] = {
		{VASurfaceAttribPixelFormat, VA_FOURCC_NV12}, {VASurfaceAttribMinWidth, 16}, {VASurfaceAttribMaxWidth, 4096},
		{VASurfaceAttribMinHeight, 16}, {VASurfaceAttribMaxHeight, 4096},
	};
	for (unsigned i = 0; list && i < 5; i++) {
		list[i] = (VASurfaceAttrib){.type = all[i].type, .flags = VA_SURFACE_ATTRIB_GETTABLE | VA_SURFACE_ATTRIB_SETTABLE};
		list[i].value.type = VAGenericValueTypeInteger;
		list[i].value.value.i = all[i].value;
	}
	*n = 5;
	return VA_STATUS_SUCCESS;
}

static VAStatus CreateSurfaces2(VADriverContextP ctx, unsigned format, unsigned w, unsigned h, VASurfaceID *ids, unsigned n, VASurfaceAttrib *attribs, unsigned n_attribs) {
	ENTER("CreateSurfaces");
	for (unsigned i = 0; i < n_attribs; i++)
		if (attribs[i].type == VASurfaceAttribPixelFormat && attribs[i].value.value.i != VA_FOURCC_NV12)
			return VA_STATUS_ERROR_ATTR_NOT_SUPPORTED;
	if (format != VA_RT_FORMAT_YUV420)
		return VA_STATUS_ERROR_UNSUPPORTED_RT_FORMAT;
	for (unsigned i = 0; i < n; i++) {
		object *o = add(f, SURFACE);
		o->w = (int)w;
		o->h = (int)h;
		o->size = (size_t)w * h * 3 / 2;
		o->data = calloc(1, o->size);
		ids[i] = o->id;
	}
	return VA_STATUS_SUCCESS;
}

static VAStatus CreateSurfaces(VADriverContextP ctx, int w, int h, int format, int n, VASurfaceID *ids) {
	return CreateSurfaces2(ctx, (unsigned)format, (unsigned)w, (unsigned)h, ids, (unsigned)n, NULL, 0);
}

static VAStatus DestroySurfaces(VADriverContextP ctx, VASurfaceID *ids, int n) {
	for (int i = 0; i < n; i++)
		drop(of(ctx), SURFACE, ids[i], VA_STATUS_ERROR_INVALID_SURFACE);
	return VA_STATUS_SUCCESS;
}

static VAStatus QueryImageFormats(VADriverContextP ctx, VAImageFormat *list, int *n) {
	ENTER("QueryImageFormats");
	list[0] = (VAImageFormat){.fourcc = VA_FOURCC_NV12, .byte_order = VA_LSB_FIRST, .bits_per_pixel = 12};
	*n = 1;
	return VA_STATUS_SUCCESS;
}

static object *new_image(fake *f, int w, int h, object *surface) {
	object *b = add(f, BUFFER);
	b->type = VAImageBufferType;
	b->size = (size_t)w * h * 3 / 2;
	b->of = surface;
	if (!surface)
		b->data = calloc(1, b->size);
	object *o = add(f, IMAGE);
	o->image = (VAImage){.image_id = o->id, .format = {.fourcc = VA_FOURCC_NV12, .byte_order = VA_LSB_FIRST, .bits_per_pixel = 12},
		.buf = b->id, .width = (uint16_t)w, .height = (uint16_t)h, .data_size = (uint32_t)b->size, .num_planes = 2,
		.pitches = {(uint32_t)w, (uint32_t)w}, .offsets = {0, (uint32_t)(w * h)}};
	return o;
}

static VAStatus CreateImage(VADriverContextP ctx, VAImageFormat *format, int w, int h, VAImage *image) {
	ENTER("CreateImage");
	if (format->fourcc != VA_FOURCC_NV12)
		return VA_STATUS_ERROR_INVALID_IMAGE_FORMAT;
	*image = new_image(f, w, h, NULL)->image;
	return VA_STATUS_SUCCESS;
}

static VAStatus DeriveImage(VADriverContextP ctx, VASurfaceID id, VAImage *image) {
	ENTER("DeriveImage");
	object *s = find(f, SURFACE, id);
	if (!f->derive || !s)
		return VA_STATUS_ERROR_OPERATION_FAILED;
	*image = new_image(f, s->w, s->h, s)->image;
	return VA_STATUS_SUCCESS;
}

static VAStatus DestroyImage(VADriverContextP ctx, VAImageID id) {
	fake *f = of(ctx);
	object *o = find(f, IMAGE, id);
	if (o)
		drop(f, BUFFER, o->image.buf, VA_STATUS_ERROR_INVALID_BUFFER);
	VAStatus status = drop(f, IMAGE, id, VA_STATUS_ERROR_INVALID_IMAGE);
	return scripted(f, "DestroyImage") ? VA_STATUS_ERROR_OPERATION_FAILED : status;
}

static VAStatus PutImage(VADriverContextP ctx, VASurfaceID surface, VAImageID image, int sx, int sy, unsigned sw, unsigned sh, int dx, int dy, unsigned dw, unsigned dh) {
	ENTER("PutImage");
	object *s = find(f, SURFACE, surface), *i = find(f, IMAGE, image);
	if (!s || !i || sx || sy || dx || dy || sw != dw || sh != dh || (int)sw > s->w || (int)sh > s->h)
		return VA_STATUS_ERROR_INVALID_PARAMETER;
	object *b = find(f, BUFFER, i->image.buf);
	for (unsigned y = 0; y < sh; y++)
		memcpy(s->data + (size_t)y * s->w, b->data + (size_t)y * i->image.pitches[0], sw);
	for (unsigned y = 0; y < sh / 2; y++)
		memcpy(s->data + (size_t)s->w * (s->h + y), b->data + i->image.offsets[1] + (size_t)y * i->image.pitches[1], sw);
	return VA_STATUS_SUCCESS;
}

// ---- contexts and buffers

static VAStatus CreateContext(VADriverContextP ctx, VAConfigID config, int w, int h, int flag, VASurfaceID *targets, int n, VAContextID *id) {
	ENTER("CreateContext");
	(void)flag;
	object *c = find(f, CONFIG, config);
	if (!c)
		return VA_STATUS_ERROR_INVALID_CONFIG;
	for (int i = 0; i < n; i++)
		if (!find(f, SURFACE, targets[i]))
			return VA_STATUS_ERROR_INVALID_SURFACE;
	object *o = add(f, CONTEXT);
	o->w = w;
	o->h = h;
	o->packed = c->packed;
	*id = o->id;
	say(f, "context %dx%d", w, h);
	return VA_STATUS_SUCCESS;
}

static VAStatus DestroyContext(VADriverContextP ctx, VAContextID id) {
	return drop(of(ctx), CONTEXT, id, VA_STATUS_ERROR_INVALID_CONTEXT);
}

static VAStatus CreateBuffer(VADriverContextP ctx, VAContextID context, VABufferType type, unsigned size, unsigned n, void *data, VABufferID *id) {
	ENTER("CreateBuffer");
	(void)context;
	object *o = add(f, BUFFER);
	o->type = type;
	o->size = (size_t)size * n;
	o->data = calloc(1, o->size);
	if (data)
		memcpy(o->data, data, o->size);
	*id = o->id;
	return VA_STATUS_SUCCESS;
}

static VAStatus DestroyBuffer(VADriverContextP ctx, VABufferID id) {
	fake *f = of(ctx);
	VAStatus status = drop(f, BUFFER, id, VA_STATUS_ERROR_INVALID_BUFFER);
	return scripted(f, "DestroyBuffer") ? VA_STATUS_ERROR_OPERATION_FAILED : status;
}

static VAStatus MapBuffer(VADriverContextP ctx, VABufferID id, void **at) {
	ENTER("MapBuffer");
	object *o = find(f, BUFFER, id);
	if (!o)
		return VA_STATUS_ERROR_INVALID_BUFFER;
	o->mapped++;
	*at = o->of ? o->of->data : o->data;
	if (o->type == VAEncCodedBufferType) {
		f->segment.buf = o->data;
		*at = &f->segment;
	}
	return VA_STATUS_SUCCESS;
}

static VAStatus UnmapBuffer(VADriverContextP ctx, VABufferID id) {
	fake *f = of(ctx);
	object *o = find(f, BUFFER, id);
	if (!o || !o->mapped)
		return VA_STATUS_ERROR_INVALID_BUFFER;
	o->mapped--;
	return scripted(f, "UnmapBuffer") ? VA_STATUS_ERROR_OPERATION_FAILED : VA_STATUS_SUCCESS;
}

// Only libva's own trace asks for this.
static VAStatus BufferInfo(VADriverContextP ctx, VABufferID id, VABufferType *type, unsigned *size, unsigned *n) {
	object *o = find(of(ctx), BUFFER, id);
	if (!o)
		return VA_STATUS_ERROR_INVALID_BUFFER;
	*type = o->type;
	*size = (unsigned)o->size;
	*n = 1;
	return VA_STATUS_SUCCESS;
}

// ---- pictures

static VAStatus BeginPicture(VADriverContextP ctx, VAContextID context, VASurfaceID target) {
	ENTER("BeginPicture");
	f->context = find(f, CONTEXT, context);
	f->input = find(f, SURFACE, target);
	f->has_pic = f->has_slice = false;
	memset(f->header_bits, 0, sizeof f->header_bits);
	return f->context && f->input ? VA_STATUS_SUCCESS : VA_STATUS_ERROR_INVALID_SURFACE;
}

static void set_rate(fake *f, uint32_t bps) {
	if (bps == f->bps)
		return;
	f->bps = bps;
	say(f, "rate picture=%ld bps=%u", f->pictures, bps);
	if (f->enc) {
		SBitrateInfo rate = {SPATIAL_LAYER_ALL, (int)bps};
		(*f->enc)->SetOption(f->enc, ENCODER_OPTION_BITRATE, &rate);
	}
}

static VAStatus render_misc(fake *f, const object *o) {
	const VAEncMiscParameterBuffer *m = (const void *)o->data;
	switch (m->type) {
	case VAEncMiscParameterTypeRateControl: {
		const VAEncMiscParameterRateControl *rc = (const void *)m->data;
		set_rate(f, rc->bits_per_second);
		return VA_STATUS_SUCCESS;
	}
	case VAEncMiscParameterTypeFrameRate: {
		const VAEncMiscParameterFrameRate *r = (const void *)m->data;
		f->fps_num = r->framerate & 0xffff;
		f->fps_den = r->framerate >> 16 ? r->framerate >> 16 : 1;
		return VA_STATUS_SUCCESS;
	}
	case VAEncMiscParameterTypeHRD: {
		const VAEncMiscParameterHRD *h = (const void *)m->data;
		if (!h->buffer_size || h->initial_buffer_fullness > h->buffer_size)
			return VA_STATUS_ERROR_INVALID_PARAMETER;
		return VA_STATUS_SUCCESS;
	}
	case VAEncMiscParameterTypeMaxFrameSize:
	case VAEncMiscParameterTypeQualityLevel:
		return VA_STATUS_SUCCESS;
	default:
		say(f, "contract: misc parameter %d", m->type);
		return VA_STATUS_ERROR_UNSUPPORTED_BUFFERTYPE;
	}
}

static VAStatus render_packed(fake *f, const object *o) {
	if (o->type == VAEncPackedHeaderParameterBufferType) {
		const VAEncPackedHeaderParameterBuffer *p = (const void *)o->data;
		f->packed_type = (int)p->type;
		f->packed_bits = p->bit_length;
		if (!p->has_emulation_bytes) {
			say(f, "contract: packed header without escapes");
			return VA_STATUS_ERROR_INVALID_PARAMETER;
		}
		return VA_STATUS_SUCCESS;
	}
	int i = f->packed_type - 1;
	if (i < 0 || i > 2 || f->packed_bits > 8 * sizeof f->header[0] || o->size < (f->packed_bits + 7) / 8) {
		say(f, "contract: packed header of type %d, %u bits in %zu bytes", f->packed_type, f->packed_bits, o->size);
		return VA_STATUS_ERROR_INVALID_PARAMETER;
	}
	memcpy(f->header[i], o->data, (f->packed_bits + 7) / 8);
	f->header_bits[i] = f->packed_bits;
	return VA_STATUS_SUCCESS;
}

static VAStatus take(void *to, size_t n, const object *o, bool *has) {
	if (o->size != n)
		return VA_STATUS_ERROR_INVALID_PARAMETER;
	memcpy(to, o->data, n);
	*has = true;
	return VA_STATUS_SUCCESS;
}

static VAStatus render(fake *f, const object *o) {
	switch (o->type) {
	case VAEncSequenceParameterBufferType:
		return take(&f->seq, sizeof f->seq, o, &f->has_seq);
	case VAEncPictureParameterBufferType:
		return take(&f->pic, sizeof f->pic, o, &f->has_pic);
	case VAEncSliceParameterBufferType:
		return take(&f->slice_param, sizeof f->slice_param, o, &f->has_slice);
	case VAEncMiscParameterBufferType:
		return render_misc(f, o);
	case VAEncPackedHeaderParameterBufferType:
	case VAEncPackedHeaderDataBufferType:
		return render_packed(f, o);
	default:
		say(f, "contract: buffer of type %d", o->type);
		return VA_STATUS_ERROR_UNSUPPORTED_BUFFERTYPE;
	}
}

static VAStatus RenderPicture(VADriverContextP ctx, VAContextID context, VABufferID *ids, int n) {
	ENTER("RenderPicture");
	(void)context;
	for (int i = 0; i < n; i++) {
		const object *o = find(f, BUFFER, ids[i]);
		VAStatus status = o ? render(f, o) : VA_STATUS_ERROR_INVALID_BUFFER;
		if (status != VA_STATUS_SUCCESS)
			return status;
	}
	return VA_STATUS_SUCCESS;
}

// violation names what an application told wrongly, or is NULL.
static const char *violation(const fake *f) {
	const VAEncSequenceParameterBufferH264 *s = &f->seq;
	const VAEncPictureParameterBufferH264 *p = &f->pic;
	const VAEncSliceParameterBufferH264 *l = &f->slice_param;
	bool idr = p->pic_fields.bits.idr_pic_flag;
	uint32_t mask = (1u << (s->seq_fields.bits.log2_max_frame_num_minus4 + 4)) - 1;
	if (!f->has_seq || !f->has_pic || !f->has_slice)
		return "parameters are missing";
	if (s->picture_width_in_mbs * 16 != f->context->w || s->picture_height_in_mbs * 16 != f->context->h ||
		f->input->w > f->context->w || f->input->h > f->context->h)
		return "size in macroblocks";
	if (!f->begun && !idr)
		return "first picture is no IDR picture";
	if (l->num_macroblocks != (uint32_t)s->picture_width_in_mbs * s->picture_height_in_mbs || l->macroblock_address)
		return "slice does not hold the picture";
	if (l->slice_type % 5 != (idr ? 2 : 0))
		return "slice type";
	if (p->frame_num != (idr ? 0 : (f->last_frame_num + 1) & mask))
		return "frame_num";
	if (!p->pic_fields.bits.reference_pic_flag)
		return "not a reference";
	if (p->pic_fields.bits.entropy_coding_mode_flag || p->pic_fields.bits.transform_8x8_mode_flag || s->seq_fields.bits.pic_order_cnt_type == 1)
		return "not constrained baseline";
	if (!idr && (l->RefPicList0[0].picture_id != f->last_recon || p->ReferenceFrames[0].picture_id != f->last_recon ||
		l->RefPicList0[0].frame_idx != f->last_frame_num))
		return "reference is not the last picture";
	if (!idr && p->CurrPic.picture_id == f->last_recon)
		return "reconstructs over its reference";
	if (l->disable_deblocking_filter_idc || l->slice_alpha_c0_offset_div2 || l->slice_beta_offset_div2)
		return "deblocking that this driver cannot do";
	if (idr && (((f->context->packed & VA_ENC_PACKED_HEADER_SEQUENCE) && !f->header_bits[0]) ||
		((f->context->packed & VA_ENC_PACKED_HEADER_PICTURE) && !f->header_bits[1])))
		return "packed parameter sets are missing";
	if ((f->context->packed & VA_ENC_PACKED_HEADER_SLICE) && !f->header_bits[2])
		return "packed slice header is missing";
	return NULL;
}

// ---- the encoder inside

static VAStatus open_inner(fake *f) {
	f->enc_w = f->context->w;
	f->enc_h = f->context->h;
	SEncParamExt p;
	memset(&p, 0, sizeof p);
	if (WelsCreateSVCEncoder(&f->enc))
		return VA_STATUS_ERROR_ALLOCATION_FAILED;
	int quiet = WELS_LOG_QUIET;
	(*f->enc)->SetOption(f->enc, ENCODER_OPTION_TRACE_LEVEL, &quiet);
	(*f->enc)->GetDefaultParams(f->enc, &p);
	p.iUsageType = CAMERA_VIDEO_REAL_TIME;
	p.iPicWidth = p.sSpatialLayers[0].iVideoWidth = f->enc_w;
	p.iPicHeight = p.sSpatialLayers[0].iVideoHeight = f->enc_h;
	p.iTargetBitrate = p.sSpatialLayers[0].iSpatialBitrate = (int)f->bps;
	p.iRCMode = RC_BITRATE_MODE;
	p.fMaxFrameRate = p.sSpatialLayers[0].fFrameRate = (float)f->fps_num / (float)f->fps_den;
	p.iNumRefFrame = 1;
	p.iMinQp = 12; // no I_PCM, whose alignment a move by bits would break
	p.iMaxQp = 51;
	p.eSpsPpsIdStrategy = CONSTANT_ID;
	p.bEnableFrameSkip = false;
	p.bEnableSceneChangeDetect = false;
	p.iMultipleThreadIdc = 1;
	p.sSpatialLayers[0].uiProfileIdc = PRO_BASELINE;
	p.sSpatialLayers[0].uiLevelIdc = LEVEL_5_2;
	p.sSpatialLayers[0].sSliceArgument.uiSliceMode = SM_SINGLE_SLICE;
	f->i420 = malloc((size_t)f->enc_w * f->enc_h * 3 / 2);
	return (*f->enc)->InitializeExt(f->enc, &p) ? VA_STATUS_ERROR_ENCODING_ERROR : VA_STATUS_SUCCESS;
}

static int least(int a, int b) { return a < b ? a : b; }

// inner encodes the input surface and returns the slice's NAL unit without start code, from malloc.
static uint8_t *inner(fake *f, bool idr, size_t *n) {
	int w = f->enc_w, h = f->enc_h, iw = f->input->w, ih = f->input->h;
	uint8_t *cb = f->i420 + w * h, *cr = cb + w * h / 4;
	const uint8_t *y = f->input->data, *c = y + iw * ih;
	for (int i = 0; i < w * h; i++) // an input smaller than the picture repeats its edge
		f->i420[i] = y[least(i / w, ih - 1) * iw + least(i % w, iw - 1)];
	for (int i = 0; i < w * h / 4; i++) {
		const uint8_t *pair = c + least(i / (w / 2), ih / 2 - 1) * iw + 2 * least(i % (w / 2), iw / 2 - 1);
		cb[i] = pair[0];
		cr[i] = pair[1];
	}
	SSourcePicture pic;
	memset(&pic, 0, sizeof pic);
	pic.iColorFormat = videoFormatI420;
	pic.iPicWidth = f->enc_w;
	pic.iPicHeight = f->enc_h;
	pic.pData[0] = f->i420;
	pic.pData[1] = cb;
	pic.pData[2] = cr;
	pic.iStride[0] = f->enc_w;
	pic.iStride[1] = pic.iStride[2] = f->enc_w / 2;
	pic.uiTimeStamp = f->pictures * 1000 * f->fps_den / f->fps_num;
	if (idr)
		((int (*)(ISVCEncoder *, bool, int))(void *)(*f->enc)->ForceIntraFrame)(f->enc, true, -1); // all layers
	SFrameBSInfo info;
	memset(&info, 0, sizeof info);
	if ((*f->enc)->EncodeFrame(f->enc, &pic, &info) || info.iLayerNum < 1)
		return NULL;
	// One slice: the last NAL unit of the last layer.
	const SLayerBSInfo *l = &info.sLayerInfo[info.iLayerNum - 1];
	size_t at = 0;
	for (int i = 0; i < l->iNalCount - 1; i++)
		at += (size_t)l->pNalLengthInByte[i];
	*n = (size_t)l->pNalLengthInByte[l->iNalCount - 1] - 4;
	uint8_t *nal = malloc(*n);
	memcpy(nal, l->pBsBuf + at + 4, *n);
	return nal;
}

// slice_header finds slice_qp_delta and the end in a slice header (7.3.3), which begins behind the NAL unit's header.
typedef struct {
	bool idr, deblocking; // fields of deblocking are there
	int frame_num_bits, poc_type, poc_bits;
} syntax;

typedef struct {
	size_t qp_at, qp_end, end;
	int qp_delta;
	bool plain; // nothing in it that this driver's slice data contradicts
} slice_header;

static slice_header parse_slice(bits_in *r, syntax s) {
	slice_header h = {.plain = true};
	h.plain &= get_ue(r) == 0;
	get_ue(r);
	get_ue(r);
	get(r, s.frame_num_bits);
	if (s.idr)
		get_ue(r);
	if (s.poc_type == 0)
		get(r, s.poc_bits);
	if (!s.idr) {
		if (get(r, 1))
			h.plain &= get_ue(r) == 0;
		if (get(r, 1))
			for (uint32_t op = get_ue(r); op != 3 && !r->bad; op = get_ue(r))
				h.plain &= get_ue(r) == 0; // abs_diff_pic_num_minus1 0: the last picture
		if (get(r, 1)) // adaptive_ref_pic_marking_mode_flag: the last picture may be forgotten by name (FFmpeg does)
			for (uint32_t op = get_ue(r); op != 0 && !r->bad; op = get_ue(r))
				h.plain &= op == 1 && get_ue(r) == 0;
	} else {
		get(r, 2);
	}
	h.qp_at = r->at;
	h.qp_delta = get_se(r);
	h.qp_end = r->at;
	if (s.deblocking)
		h.plain &= get_ue(r) == 0 && get_se(r) == 0 && get_se(r) == 0;
	h.end = r->at;
	h.plain &= !r->bad;
	return h;
}

// ---- headers of the driver's own

static void write_sps(bits_out *w, const fake *f) {
	const VAEncSequenceParameterBufferH264 *s = &f->seq;
	put(w, 8, 0x67);
	put(w, 8, 66);
	put(w, 8, 0xc0);
	put(w, 8, s->level_idc);
	put_ue(w, s->seq_parameter_set_id);
	put_ue(w, s->seq_fields.bits.log2_max_frame_num_minus4);
	put_ue(w, s->seq_fields.bits.pic_order_cnt_type);
	if (s->seq_fields.bits.pic_order_cnt_type == 0)
		put_ue(w, s->seq_fields.bits.log2_max_pic_order_cnt_lsb_minus4);
	put_ue(w, s->max_num_ref_frames);
	put(w, 1, 0);
	put_ue(w, s->picture_width_in_mbs - 1);
	put_ue(w, s->picture_height_in_mbs - 1);
	put(w, 1, s->seq_fields.bits.frame_mbs_only_flag);
	put(w, 1, s->seq_fields.bits.direct_8x8_inference_flag);
	put(w, 1, s->frame_cropping_flag);
	if (s->frame_cropping_flag) {
		put_ue(w, s->frame_crop_left_offset);
		put_ue(w, s->frame_crop_right_offset);
		put_ue(w, s->frame_crop_top_offset);
		put_ue(w, s->frame_crop_bottom_offset);
	}
	put(w, 1, 0); // no VUI: several drivers write none
	put_end(w);
}

static void write_pps(bits_out *w, const fake *f) {
	const VAEncPictureParameterBufferH264 *p = &f->pic;
	put(w, 8, 0x68);
	put_ue(w, p->pic_parameter_set_id);
	put_ue(w, p->seq_parameter_set_id);
	put(w, 2, p->pic_fields.bits.entropy_coding_mode_flag << 1);
	put_ue(w, 0);
	put_ue(w, p->num_ref_idx_l0_active_minus1);
	put_ue(w, p->num_ref_idx_l1_active_minus1);
	put(w, 3, 0);
	put_se(w, p->pic_init_qp - 26);
	put_se(w, 0);
	put_se(w, p->chroma_qp_index_offset);
	put(w, 1, p->pic_fields.bits.deblocking_filter_control_present_flag);
	put(w, 1, p->pic_fields.bits.constrained_intra_pred_flag);
	put(w, 1, 0);
	put_end(w);
}

static void write_slice(bits_out *w, const fake *f) {
	const VAEncSliceParameterBufferH264 *l = &f->slice_param;
	bool idr = f->pic.pic_fields.bits.idr_pic_flag;
	put(w, 8, idr ? 0x65 : 0x41);
	put_ue(w, l->macroblock_address);
	put_ue(w, l->slice_type % 5 + (uint32_t)f->numbering);
	put_ue(w, l->pic_parameter_set_id);
	put(w, (int)f->seq.seq_fields.bits.log2_max_frame_num_minus4 + 4, f->pic.frame_num);
	if (idr)
		put_ue(w, l->idr_pic_id);
	if (f->seq.seq_fields.bits.pic_order_cnt_type == 0)
		put(w, (int)f->seq.seq_fields.bits.log2_max_pic_order_cnt_lsb_minus4 + 4, l->pic_order_cnt_lsb);
	put(w, idr ? 2 : 3, 0);
	put_se(w, l->slice_qp_delta);
	if (f->pic.pic_fields.bits.deblocking_filter_control_present_flag)
		put(w, 3, 7); // on, offsets 0
}

// ---- the end of a picture

// application returns the packed slice header without start code and escapes.
static void application(bits_out *w, const fake *f) {
	size_t bits = f->header_bits[2], skip = 0;
	uint8_t *b = malloc(sizeof f->header[2]);
	memcpy(b, f->header[2], sizeof f->header[2]);
	while (skip < 8 && b[skip] == 0)
		skip++;
	skip++; // the start code's one
	size_t bytes = (bits + 7) / 8 - skip, spare = (8 - bits % 8) % 8;
	bytes = unescape(memmove(b, b + skip, bytes), bytes);
	copy_bits(w, (bits_in){.data = b, .end = 8 * bytes}, 0, 8 * bytes - spare);
	free(b);
}

// read_pps keeps what the packed picture parameter set says about deblocking: the slice headers follow it, whatever the
// picture's parameters say (FFmpeg's do not agree with each other).
static void read_pps(fake *f) {
	for (int i = 0; i < 2; i++)
		for (size_t at = 0; at + 4 < f->header_bits[i] / 8; at++) {
			uint8_t *b = f->header[i] + at;
			if (b[0] || b[1] || b[2] != 1 || (b[3] & 0x1f) != 8)
				continue;
			bits_in r = {.data = b + 4, .end = f->header_bits[i] - 8 * (at + 4)};
			get_ue(&r);
			get_ue(&r);
			get(&r, 2);
			get_ue(&r);
			get_ue(&r);
			get_ue(&r);
			get(&r, 3);
			get_se(&r);
			get_se(&r);
			get_se(&r);
			f->packed_deblocking = get(&r, 1);
		}
}

static void emit(uint8_t *to, size_t room, size_t *n, bits_out *w) {
	*n += escaped(to + *n, room - *n, w->data, w->bits / 8);
	free(w->data);
	*w = (bits_out){0};
}

static VAStatus compose(fake *f, uint8_t *nal, size_t n, object *coded, size_t *size) {
	bool idr = f->pic.pic_fields.bits.idr_pic_flag;
	bits_out w = {0}, head = {0};
	bool deblocking = f->pic.pic_fields.bits.deblocking_filter_control_present_flag;
	if (f->context->packed & VA_ENC_PACKED_HEADER_SEQUENCE) {
		read_pps(f);
		deblocking = f->packed_deblocking;
	}
	if (idr) {
		// An application may put both parameter sets into the sequence's header.
		for (int i = 0; i < 2; i++) {
			memcpy(coded->data + *size, f->header[i], f->header_bits[i] / 8);
			*size += f->header_bits[i] / 8;
		}
		if (!(f->context->packed & VA_ENC_PACKED_HEADER_SEQUENCE)) {
			write_sps(&w, f);
			emit(coded->data, coded->size, size, &w);
			write_pps(&w, f);
			emit(coded->data, coded->size, size, &w);
		}
	}
	f->context->packed & VA_ENC_PACKED_HEADER_SLICE ? application(&head, f) : write_slice(&head, f);
	n = unescape(nal, n);
	bits_in theirs = {.data = head.data, .at = 8, .end = head.bits}, ours = {.data = nal, .at = 8, .end = 8 * n};
	syntax s = {idr, deblocking, (int)f->seq.seq_fields.bits.log2_max_frame_num_minus4 + 4, (int)f->seq.seq_fields.bits.pic_order_cnt_type,
		(int)f->seq.seq_fields.bits.log2_max_pic_order_cnt_lsb_minus4 + 4};
	slice_header t = parse_slice(&theirs, s), o = parse_slice(&ours, (syntax){idr, true, 15, 0, 16});
	if (!t.plain || t.end != head.bits || !o.plain) {
		say(f, "contract: slice header of %zu bits, understood %zu", head.bits, t.end);
		free(head.data);
		return VA_STATUS_ERROR_INVALID_PARAMETER;
	}
	size_t end = 8 * n;
	while (!(nal[(end - 1) / 8] >> (7 - (end - 1) % 8) & 1))
		end--; // rbsp_stop_one_bit
	copy_bits(&w, theirs, 0, t.qp_at);
	put_se(&w, 26 + o.qp_delta - f->pic.pic_init_qp);
	copy_bits(&w, theirs, t.qp_end, t.end);
	copy_bits(&w, ours, o.end, end);
	while (w.bits % 8)
		put(&w, 1, 0);
	free(head.data);
	emit(coded->data, coded->size, size, &w);
	return VA_STATUS_SUCCESS;
}

static void pause_ms(long ms) {
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	nanosleep(&t, NULL);
}

static VAStatus EndPicture(VADriverContextP ctx, VAContextID context) {
	ENTER("EndPicture");
	(void)context;
	if (!f->has_pic)
		return VA_STATUS_ERROR_INVALID_PARAMETER;
	if (f->fail_at >= 0 && f->pictures >= f->fail_at)
		return VA_STATUS_ERROR_ENCODING_ERROR;
	object *coded = find(f, BUFFER, f->pic.coded_buf);
	const char *wrong = coded ? violation(f) : "no coded buffer";
	if (wrong) {
		say(f, "contract: picture=%ld %s", f->pictures, wrong);
		return VA_STATUS_ERROR_INVALID_PARAMETER;
	}
	bool idr = f->pic.pic_fields.bits.idr_pic_flag;
	if (idr)
		say(f, "idr picture=%ld", f->pictures);
	if (!f->enc) {
		if (!f->bps)
			set_rate(f, f->seq.bits_per_second);
		VAStatus status = open_inner(f);
		if (status != VA_STATUS_SUCCESS)
			return status;
	}
	size_t n;
	uint8_t *nal = inner(f, idr, &n);
	if (!nal)
		return VA_STATUS_ERROR_ENCODING_ERROR;
	memset(&f->segment, 0, sizeof f->segment);
	size_t size = 0;
	VAStatus status = compose(f, nal, n, coded, &size);
	free(nal);
	if (f->pictures == f->damage_at && size > 8)
		coded->data[6] ^= 0x18; // inside the frame_num of a P picture
	f->segment.size = f->pictures == f->empty_at ? 0 : (unsigned)size;
	f->last_frame_num = f->pic.frame_num;
	f->last_recon = f->pic.CurrPic.picture_id;
	f->begun = true;
	f->pictures++;
	return status;
}

static VAStatus SyncSurface(VADriverContextP ctx, VASurfaceID surface) {
	ENTER("SyncSurface");
	(void)surface;
	if (f->hang_at >= 0 && f->pictures - 1 == f->hang_at)
		pause_ms(f->hang_ms);
	return VA_STATUS_SUCCESS;
}

static VAStatus SyncBuffer(VADriverContextP ctx, VABufferID buffer, uint64_t timeout_ns) {
	ENTER("SyncBuffer");
	(void)buffer;
	if (!f->sync_buffer)
		return VA_STATUS_ERROR_UNIMPLEMENTED;
	if (f->hang_at >= 0 && f->pictures - 1 == f->hang_at) {
		pause_ms((long)(timeout_ns / 1000000));
		return VA_STATUS_ERROR_TIMEDOUT;
	}
	return VA_STATUS_SUCCESS;
}

// ---- start and end

static VAStatus Terminate(VADriverContextP ctx) {
	fake *f = of(ctx);
	int left[KINDS] = {0};
	while (f->objects) {
		object *o = f->objects;
		left[o->kind]++;
		f->objects = o->next;
		free(o->data);
		free(o);
	}
	if (f->enc) {
		(*f->enc)->Uninitialize(f->enc);
		WelsDestroySVCEncoder(f->enc);
	}
	say(f, "end %s=%d %s=%d %s=%d %s=%d %s=%d", kinds[0], left[0], kinds[1], left[1], kinds[2], left[2], kinds[3], left[3], kinds[4], left[4]);
	if (f->log)
		fclose(f->log);
	free(f->i420);
	free(f);
	ctx->pDriverData = NULL;
	return VA_STATUS_SUCCESS;
}

static bool is(const char *name, const char *value) {
	const char *v = getenv(name);
	return v && !strcmp(v, value);
}

static long number(const char *name, long otherwise) {
	const char *v = getenv(name);
	return v && *v ? strtol(v, NULL, 10) : otherwise;
}

static void read_script(fake *f) {
	const char *log = getenv("FAKE_VA_LOG"), *fail = getenv("FAKE_VA_FAIL");
	f->log = log && *log ? fopen(log, "ae") : NULL;
	f->app = is("FAKE_VA_HEADERS", "app");
	f->numbering = (int)number("FAKE_VA_NUMBERING", 0);
	f->derive = !is("FAKE_VA_DERIVE", "no");
	f->sync_buffer = !is("FAKE_VA_SYNC_BUFFER", "no");
	f->busy = is("FAKE_VA_CONFIG", "busy");
	f->cbr = !is("FAKE_VA_CBR", "no");
	f->lp = is("FAKE_VA_ENTRYPOINTS", "lp") || is("FAKE_VA_ENTRYPOINTS", "both");
	f->slice = !is("FAKE_VA_ENTRYPOINTS", "lp") && !is("FAKE_VA_ENTRYPOINTS", "none");
	f->fail_at = number("FAKE_VA_FAIL_AT", -1);
	f->hang_at = number("FAKE_VA_HANG_AT", -1);
	f->hang_ms = number("FAKE_VA_HANG_MS", 3600 * 1000);
	f->empty_at = number("FAKE_VA_EMPTY_AT", -1);
	f->damage_at = number("FAKE_VA_DAMAGE_AT", -1);
	f->fps_num = 30;
	f->fps_den = 1;
	if (fail)
		sscanf(fail, "%63[^:]:%d", f->fail_call, &f->fail_nth);
}

#define NAME2(major, minor) __vaDriverInit_##major##_##minor
#define NAME(major, minor) NAME2(major, minor)

VAStatus NAME(VA_MAJOR_VERSION, VA_MINOR_VERSION)(VADriverContextP ctx);

__attribute__((visibility("default"))) VAStatus NAME(VA_MAJOR_VERSION, VA_MINOR_VERSION)(VADriverContextP ctx) {
	if (is("FAKE_VA_INIT", "fail"))
		return VA_STATUS_ERROR_UNKNOWN;
	fake *f = calloc(1, sizeof *f);
	if (!f)
		return VA_STATUS_ERROR_ALLOCATION_FAILED;
	read_script(f);
	say(f, "begin headers=%s", f->app ? "app" : "driver");
	ctx->pDriverData = f;
	ctx->version_major = VA_MAJOR_VERSION;
	ctx->version_minor = VA_MINOR_VERSION;
	ctx->max_profiles = ctx->max_entrypoints = 2;
	ctx->max_attributes = 10;
	ctx->max_image_formats = ctx->max_subpic_formats = ctx->max_display_attributes = 1;
	ctx->str_vendor = "fake driver";
	void **every = (void **)ctx->vtable;
	for (size_t i = 0; i < offsetof(struct VADriverVTable, reserved) / sizeof *every; i++)
		every[i] = (void *)unimplemented;
	struct VADriverVTable *v = ctx->vtable;
	v->vaTerminate = Terminate;
	v->vaQueryConfigProfiles = QueryConfigProfiles;
	v->vaQueryConfigEntrypoints = QueryConfigEntrypoints;
	v->vaGetConfigAttributes = GetConfigAttributes;
	v->vaCreateConfig = CreateConfig;
	v->vaDestroyConfig = DestroyConfig;
	v->vaQueryConfigAttributes = QueryConfigAttributes;
	v->vaQuerySurfaceAttributes = QuerySurfaceAttributes;
	v->vaCreateSurfaces = CreateSurfaces;
	v->vaCreateSurfaces2 = CreateSurfaces2;
	v->vaDestroySurfaces = DestroySurfaces;
	v->vaQueryImageFormats = QueryImageFormats;
	v->vaCreateImage = CreateImage;
	v->vaDeriveImage = DeriveImage;
	v->vaDestroyImage = DestroyImage;
	v->vaPutImage = PutImage;
	v->vaCreateContext = CreateContext;
	v->vaDestroyContext = DestroyContext;
	v->vaCreateBuffer = CreateBuffer;
	v->vaDestroyBuffer = DestroyBuffer;
	v->vaMapBuffer = MapBuffer;
	v->vaUnmapBuffer = UnmapBuffer;
	v->vaBufferInfo = BufferInfo;
	v->vaBeginPicture = BeginPicture;
	v->vaRenderPicture = RenderPicture;
	v->vaEndPicture = EndPicture;
	v->vaSyncSurface = SyncSurface;
	v->vaSyncBuffer = SyncBuffer;
	return VA_STATUS_SUCCESS;
}
