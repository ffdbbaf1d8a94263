// Every bridge to C in one program, to be built with AddressSanitizer and its leak checker: starts, changes of size,
// rates and key frames, and each failure that the fake driver can be told to have.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <va/va.h>

#include "../../../openh264/bridge.h"
#include "../../../vpx/vp8.h"
#include "../../va.h"

static uint8_t *planes(int w, int h) {
	// As much as the bridges are told there is, so that a byte too many is seen.
	uint8_t *p = malloc((size_t)w * h + 2 * (size_t)((w + 1) / 2) * ((h + 1) / 2));
	for (int i = 0; i < w * h * 3 / 2; i++)
		p[i] = (uint8_t)(i * 7 + i / w * 3);
	return p;
}

static int vaapi(int w, int h) {
	alcove_va_config cfg = {"/dev/null", VAEntrypointEncSlice, (unsigned)w, (unsigned)h, 30, 1, 500000, 31, 1000};
	alcove_va_error err;
	alcove_va *e = alcove_va_open(&cfg, &err);
	if (!e)
		return -1;
	uint8_t *p = planes(w, h);
	alcove_va_result out;
	int rc = 0;
	size_t sum = 0;
	for (int i = 0; i < 5 && !rc; i++) {
		alcove_va_stage(e, p, p + w * h, p + w * h * 5 / 4, w, w / 2);
		rc = alcove_va_encode(e, i < 3 ? 500000 : 300000, i == 4, &out, &err);
		for (size_t k = 0; !rc && k < out.n; k++)
			sum += out.unit[k];
	}
	alcove_va_close(e);
	free(p);
	return rc ? -1 : sum > 0;
}

static int openh264(int w, int h) {
	int rc;
	alcove_openh264 *e = alcove_openh264_open(w, h, 30, 500000, 31, &rc);
	if (!e)
		return -1;
	uint8_t *p = planes(w, h);
	size_t n = 0;
	for (int i = 0; i < 5; i++) {
		if (i == 3)
			alcove_openh264_rate(e, 300000);
		if (alcove_openh264_encode(e, p, p + w * h, p + w * h * 5 / 4, w, w / 2, i * 33, i == 4))
			return -1;
		n += e->n;
	}
	alcove_openh264_close(e);
	free(p);
	return n > 0;
}

static int vp8(int w, int h) {
	vpx_codec_err_t rc;
	alcove_vp8 *e = alcove_vp8_open((unsigned)w, (unsigned)h, 500, 30, -8, &rc);
	if (!e)
		return -1;
	int cw = (w + 1) / 2, ch = (h + 1) / 2;
	uint8_t *p = planes(w, h);
	size_t n = 0;
	for (int i = 0; i < 5; i++) {
		if (i == 3)
			alcove_vp8_rate(e, 300);
		if (alcove_vp8_encode(e, p, p + w * h, p + w * h + cw * ch, w, cw, i * 33333, 33333, i == 4))
			return -1;
		n += e->n;
	}
	alcove_vp8_close(e);
	free(p);
	return n > 0;
}

static void expect(const char *what, int got, int want) {
	if (got != want) {
		fprintf(stderr, "%s: %d, want %d\n", what, got, want);
		exit(1);
	}
}

int main(void) {
	static const int sizes[][2] = {{64, 48}, {320, 180}, {176, 98}, {66, 50}};
	static const char *const calls[] = {"QueryConfigEntrypoints", "GetConfigAttributes", "CreateConfig", "CreateSurfaces",
		"CreateContext", "CreateBuffer", "QueryImageFormats", "CreateImage", "DeriveImage", "MapBuffer", "UnmapBuffer", "PutImage",
		"DestroyImage", "BeginPicture", "RenderPicture", "EndPicture", "SyncBuffer", "SyncSurface", "DestroyBuffer"};
	int failures = 0;
	for (int i = 0; i < 4; i++) {
		int w = sizes[i][0], h = sizes[i][1];
		for (int app = 0; app < 2; app++) {
			setenv("FAKE_VA_HEADERS", app ? "app" : "driver", 1);
			expect("vaapi", vaapi(w, h), 1);
		}
		expect("openh264", openh264(w, h), 1);
		expect("vp8", vp8(w, h), 1);
		expect("vp8, odd", vp8(w + 1, h + 1), 1);
	}
	for (int derive = 0; derive < 2; derive++)
		for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
			for (int n = 1, rc = -1; rc < 0 || n < 3; n++) {
				char script[64];
				snprintf(script, sizeof script, "%s:%d", calls[c], n);
				setenv("FAKE_VA_FAIL", script, 1);
				setenv("FAKE_VA_DERIVE", derive ? "yes" : "no", 1);
				rc = vaapi(64, 48);
				failures += rc < 0;
			}
	unsetenv("FAKE_VA_FAIL");
	setenv("FAKE_VA_INIT", "fail", 1);
	expect("a driver that does not start", vaapi(64, 48), -1);
	printf("%d failures\n", failures);
	return failures > 50 ? 0 : 1;
}
