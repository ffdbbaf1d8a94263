// An H.264 encoder on libva, as small as vaapi.go needs it. A picture is two calls: stage copies it into memory of our
// own, encode gives that to the driver and waits. encode may never return if the driver does not, so it touches nothing
// but the encoder.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <va/va.h>

typedef struct alcove_va alcove_va;

typedef struct {
	const char *node; // render node
	int entrypoint;   // VAEntrypoint
	unsigned w, h;    // even
	unsigned fps_num, fps_den;
	unsigned bps;
	unsigned level;      // level_idc
	unsigned timeout_ms; // of one picture, when the driver can wait with a limit
} alcove_va_config;

// alcove_va_error says which step failed and why: a VAStatus, or an errno.
typedef struct {
	const char *step;
	int status;
	int os_error;
} alcove_va_error;

// alcove_va_result is an access unit in Annex B form; n is 0 when the driver dropped the picture. unit is valid until
// the next call.
typedef struct {
	const uint8_t *unit;
	size_t n;
	int key;
} alcove_va_result;

// alcove_va_open returns NULL and fills *err when a step fails; nothing stays open then.
alcove_va *alcove_va_open(const alcove_va_config *cfg, alcove_va_error *err);

// alcove_va_stage keeps an I420 picture of the encoder's size for the next encode.
void alcove_va_stage(alcove_va *e, const uint8_t *y, const uint8_t *cb, const uint8_t *cr, int y_stride, int c_stride);

// alcove_va_encode encodes the staged picture and returns 0, or -1 and fills *err. bps is in force from this picture on.
// After an error only close may be called.
int alcove_va_encode(alcove_va *e, unsigned bps, int force_key, alcove_va_result *out, alcove_va_error *err);

// alcove_va_vendor is the driver's own name. alcove_va_packs tells whether we write the headers.
const char *alcove_va_vendor(const alcove_va *e);
int alcove_va_packs(const alcove_va *e);

void alcove_va_close(alcove_va *e);

// alcove_va_error_text describes an error.
const char *alcove_va_error_text(const alcove_va_error *err);
