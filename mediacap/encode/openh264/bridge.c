#include "bridge.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// A stream as daemon/e2ee seals it: one layer, one slice, one reference, every picture a reference, intra pictures
// only where they are asked for, and ids that stay.
static void configure(SEncParamExt *p, int w, int h, double fps, int bps, int level) {
	p->iUsageType = CAMERA_VIDEO_REAL_TIME;
	p->iPicWidth = w;
	p->iPicHeight = h;
	p->iTargetBitrate = bps;
	p->iMaxBitrate = UNSPECIFIED_BIT_RATE;
	p->iRCMode = RC_BITRATE_MODE;
	p->fMaxFrameRate = (float)fps;
	p->bEnableFrameSkip = false;
	p->iMaxQp = 51;
	p->iMinQp = 12;
	p->iTemporalLayerNum = 1;
	p->iSpatialLayerNum = 1;
	p->iNumRefFrame = 1;
	p->eSpsPpsIdStrategy = CONSTANT_ID;
	p->bPrefixNalAddingCtrl = false;
	p->iEntropyCodingModeFlag = 0;
	p->uiIntraPeriod = 0;
	p->bEnableSceneChangeDetect = false;
	p->bEnableLongTermReference = false;
	p->iMultipleThreadIdc = 1;
	p->iComplexityMode = LOW_COMPLEXITY;
	p->bEnableDenoise = false;
	SSpatialLayerConfig *l = &p->sSpatialLayers[0];
	l->iVideoWidth = w;
	l->iVideoHeight = h;
	l->fFrameRate = (float)fps;
	l->iSpatialBitrate = bps;
	l->iMaxSpatialBitrate = UNSPECIFIED_BIT_RATE;
	l->uiProfileIdc = PRO_BASELINE;
	l->uiLevelIdc = (ELevelIdc)level;
	l->sSliceArgument.uiSliceMode = SM_SINGLE_SLICE;
}

alcove_openh264 *alcove_openh264_open(int w, int h, double fps, int bps, int level, int *rc) {
	alcove_openh264 *e = calloc(1, sizeof *e);
	if (!e) {
		*rc = cmMallocMemeError;
		return NULL;
	}
	e->w = w;
	e->h = h;
	if ((*rc = WelsCreateSVCEncoder(&e->enc)) || !e->enc) {
		free(e);
		return NULL;
	}
	int quiet = WELS_LOG_QUIET;
	(*e->enc)->SetOption(e->enc, ENCODER_OPTION_TRACE_LEVEL, &quiet);
	SEncParamExt p;
	memset(&p, 0, sizeof p);
	*rc = (*e->enc)->GetDefaultParams(e->enc, &p);
	if (!*rc) {
		configure(&p, w, h, fps, bps, level);
		*rc = (*e->enc)->InitializeExt(e->enc, &p);
	}
	if (*rc) {
		alcove_openh264_close(e);
		return NULL;
	}
	return e;
}

int alcove_openh264_rate(alcove_openh264 *e, int bps) {
	SBitrateInfo rate = {SPATIAL_LAYER_ALL, bps};
	return (*e->enc)->SetOption(e->enc, ENCODER_OPTION_BITRATE, &rate);
}

static int append(alcove_openh264 *e, const uint8_t *from, size_t n) {
	if (e->n + n > e->room) {
		size_t room = 2 * (e->n + n);
		uint8_t *grown = realloc(e->out, room);
		if (!grown)
			return cmMallocMemeError;
		e->out = grown;
		e->room = room;
	}
	memcpy(e->out + e->n, from, n);
	e->n += n;
	return 0;
}

// The header's view for C leaves out the method's third parameter, the layer, which C++ gives a default.
static int force_idr(ISVCEncoder *enc) {
	return ((int (*)(ISVCEncoder *, bool, int))(void *)(*enc)->ForceIntraFrame)(enc, true, -1);
}

int alcove_openh264_encode(alcove_openh264 *e, uint8_t *y, uint8_t *cb, uint8_t *cr, int y_stride, int c_stride,
	int64_t ms, int force_key) {
	int rc;
	e->n = 0;
	e->key = 0;
	if (force_key && (rc = force_idr(e->enc)))
		return rc;
	SSourcePicture pic;
	memset(&pic, 0, sizeof pic);
	pic.iColorFormat = videoFormatI420;
	pic.iPicWidth = e->w;
	pic.iPicHeight = e->h;
	pic.pData[0] = y;
	pic.pData[1] = cb;
	pic.pData[2] = cr;
	pic.iStride[0] = y_stride;
	pic.iStride[1] = pic.iStride[2] = c_stride;
	pic.uiTimeStamp = ms;
	SFrameBSInfo info;
	memset(&info, 0, sizeof info);
	if ((rc = (*e->enc)->EncodeFrame(e->enc, &pic, &info)))
		return rc;
	if (info.eFrameType == videoFrameTypeSkip || info.eFrameType == videoFrameTypeInvalid)
		return 0;
	for (int i = 0; i < info.iLayerNum; i++) {
		const SLayerBSInfo *l = &info.sLayerInfo[i];
		size_t n = 0;
		for (int k = 0; k < l->iNalCount; k++)
			n += (size_t)l->pNalLengthInByte[k];
		if ((rc = append(e, l->pBsBuf, n)))
			return rc;
	}
	e->key = info.eFrameType == videoFrameTypeIDR;
	return 0;
}

void alcove_openh264_close(alcove_openh264 *e) {
	(*e->enc)->Uninitialize(e->enc);
	WelsDestroySVCEncoder(e->enc);
	free(e->out);
	free(e);
}
