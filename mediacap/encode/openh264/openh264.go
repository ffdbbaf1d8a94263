// Package openh264 encodes H.264 constrained baseline with Cisco's openh264 (BSD), Debian's build of it. It is the
// software that stands in for a hardware encoder on the same payload type.
//
// The stream is what daemon/e2ee seals: parameter sets with id 0, CAVLC, POC type 0, one slice, one reference, every
// picture a reference, intra pictures only where a key frame was asked for, no picture skipped. The rate control aims
// at a constant rate; rate and key frames follow from one picture to the next.
//
// An Encoder belongs to one goroutine.
package openh264

// #cgo pkg-config: openh264
// #include "bridge.h"
import "C"

import (
	"fmt"
	"image"
	"time"
	"unsafe"
)

// Encoder is one running encoder of one picture size.
type Encoder struct {
	c    *C.alcove_openh264
	most int // bits per second
}

// most is the largest rate that openh264 takes at a level: table A-1's MaxBR, in bits per second.
func most(level int) int {
	switch {
	case level <= 31:
		return 14_000_000
	case level <= 40:
		return 20_000_000
	}
	return 50_000_000
}

// Open starts an encoder. level is a level_idc of ITU-T H.264 table A-1; it limits the rate.
func Open(width, height int, frameRate float64, bitsPerSecond, level int) (*Encoder, error) {
	// openh264 crops even sizes only, and its smallest picture is one macroblock (wels_preprocess).
	if width < 16 || height < 16 || width > 4096 || height > 4096 || width%2 != 0 || height%2 != 0 {
		return nil, fmt.Errorf("open openh264: size %d×%d", width, height)
	}
	var rc C.int
	c := C.alcove_openh264_open(C.int(width), C.int(height), C.double(frameRate), C.int(min(bitsPerSecond, most(level))), C.int(level), &rc)
	if c == nil {
		return nil, fmt.Errorf("open openh264: error %d", int(rc))
	}
	return &Encoder{c, most(level)}, nil
}

// Encode encodes a 4:2:0 picture of the encoder's size whose planes hold it; at is its time since the first. The
// result is an access unit in Annex B form, valid until the next call, empty when the library made none.
func (e *Encoder) Encode(img *image.YCbCr, at time.Duration, key bool) (unit []byte, isKey bool, err error) {
	force := C.int(0)
	if key {
		force = 1
	}
	// The planes are Go memory that C uses only during the call.
	if rc := C.alcove_openh264_encode(e.c, (*C.uint8_t)(&img.Y[0]), (*C.uint8_t)(&img.Cb[0]), (*C.uint8_t)(&img.Cr[0]),
		C.int(img.YStride), C.int(img.CStride), C.int64_t(at.Milliseconds()), force); rc != 0 {
		return nil, false, fmt.Errorf("openh264: error %d", int(rc))
	}
	return unsafe.Slice((*byte)(e.c.out), e.c.n), e.c.key != 0, nil
}

// SetRate changes the target rate, up to what the level allows.
func (e *Encoder) SetRate(bitsPerSecond int) error {
	if rc := C.alcove_openh264_rate(e.c, C.int(min(bitsPerSecond, e.most))); rc != 0 {
		return fmt.Errorf("openh264: set rate %d bit/s: error %d", bitsPerSecond, int(rc))
	}
	return nil
}

// Name is the library and its version.
func (e *Encoder) Name() string {
	v := C.WelsGetCodecVersion()
	return fmt.Sprintf("openh264 %d.%d.%d", uint(v.uMajor), uint(v.uMinor), uint(v.uRevision))
}

// Close frees everything.
func (e *Encoder) Close() {
	if e.c != nil {
		C.alcove_openh264_close(e.c)
		e.c = nil
	}
}
