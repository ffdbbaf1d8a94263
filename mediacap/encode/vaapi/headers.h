// The H.264 headers that the application writes when the driver does not (ITU-T H.264 sections 7.3.2 and 7.3.3).
#pragma once

#include <stddef.h>
#include <stdint.h>

// What all pictures share. The values that are not here are constants of headers.c; together they are the parameter
// sets that openh264 writes for the same format, so that one can replace the other within a stream.
#define ALCOVE_LOG2_MAX_FRAME_NUM 15
#define ALCOVE_LOG2_MAX_POC_LSB 16
#define ALCOVE_PIC_INIT_QP 26

typedef struct {
	uint8_t data[128]; // start code, NAL unit header and payload, escaped
	size_t bits;
} alcove_header;

void alcove_sps(alcove_header *out, unsigned w, unsigned h, unsigned level);
void alcove_pps(alcove_header *out);
void alcove_slice(alcove_header *out, int idr, unsigned frame_num, unsigned idr_pic_id, unsigned poc_lsb);
