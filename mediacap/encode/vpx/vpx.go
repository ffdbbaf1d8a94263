// Package vpx encodes VP8 (RFC 6386) with libvpx for real-time use: constant rate, one thread, no lookahead, no error
// resilience. Key frames come only where they are asked for. The rate control counts with the pictures' own time, so
// a busy machine makes no giant frames, and is told about a rate only when it changes.
//
// An Encoder belongs to one goroutine.
package vpx

// #cgo pkg-config: vpx
// #include "vp8.h"
import "C"

import (
	"fmt"
	"image"
	"time"
	"unsafe"
)

// speed is libvpx' cpu-used. A negative value fixes the speed; a positive one lets libvpx choose it by the machine's
// load, and with it quality and CPU time would wander.
const speed = -8

// Encoder is one running encoder of one picture size.
type Encoder struct {
	c        *C.alcove_vp8
	interval time.Duration
}

// Open starts an encoder.
func Open(width, height int, frameRate float64, bitsPerSecond int) (*Encoder, error) {
	var rc C.vpx_codec_err_t
	c := C.alcove_vp8_open(C.uint(width), C.uint(height), C.uint(bitsPerSecond/1000), C.double(frameRate), speed, &rc)
	if c == nil {
		return nil, fmt.Errorf("open VP8 encoder: %s", C.GoString(C.vpx_codec_err_to_string(rc)))
	}
	return &Encoder{c: c, interval: time.Duration(float64(time.Second) / frameRate)}, nil
}

// Encode encodes a 4:2:0 picture of the encoder's size whose planes hold it; at is its time since the first. The
// result is valid until the next call, and empty when libvpx dropped the picture to keep the rate.
func (e *Encoder) Encode(img *image.YCbCr, at time.Duration, key bool) (unit []byte, isKey bool, err error) {
	force := C.int(0)
	if key {
		force = 1
	}
	// All three planes are Go memory that C uses only during the call.
	if rc := C.alcove_vp8_encode(e.c,
		(*C.uint8_t)(&img.Y[0]), (*C.uint8_t)(&img.Cb[0]), (*C.uint8_t)(&img.Cr[0]), C.int(img.YStride), C.int(img.CStride),
		C.int64_t(at.Microseconds()), C.ulong(e.interval.Microseconds()), force); rc != 0 {
		return nil, false, fmt.Errorf("encode VP8 picture: %s", C.GoString(C.vpx_codec_err_to_string(rc)))
	}
	return unsafe.Slice((*byte)(e.c.out), e.c.n), e.c.key != 0, nil
}

// SetRate changes the target rate.
func (e *Encoder) SetRate(bitsPerSecond int) error {
	if rc := C.alcove_vp8_rate(e.c, C.uint(bitsPerSecond/1000)); rc != 0 {
		return fmt.Errorf("set VP8 rate: %s", C.GoString(C.vpx_codec_err_to_string(rc)))
	}
	return nil
}

// Name is the library and its version.
func (e *Encoder) Name() string { return "libvpx " + C.GoString(C.vpx_codec_version_str()) }

// Close frees everything.
func (e *Encoder) Close() {
	if e.c != nil {
		C.alcove_vp8_close(e.c)
		e.c = nil
	}
}
