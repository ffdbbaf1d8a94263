package encode

// #cgo pkg-config: vpx
// #include "vp8.h"
import "C"

import (
	"errors"
	"fmt"
	"image"
	"io"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/frame"
)

// Our tuning.
const (
	KeyFrameInterval = 30 * time.Second       // between key frames that nobody asked for
	KeyFrameGap      = 250 * time.Millisecond // least time between key frames; requests wait, none is lost
	// vp8Speed is libvpx' cpu-used. A negative value fixes the speed; a positive one lets libvpx choose it
	// by the machine's load, and with it quality and CPU time would wander.
	vp8Speed = -8
)

// VP8 builds libvpx VP8 encoders for real-time use: constant rate, one thread, no lookahead, no error
// resilience.
type VP8 struct {
	BitRate   int     // bits per second
	FrameRate float32 // nominal, frames per second
}

// RTPCodec implements codec.VideoEncoderBuilder.
func (v *VP8) RTPCodec() *codec.RTPCodec { return codec.NewRTPVP8Codec(90000) }

// BuildVideoEncoder implements codec.VideoEncoderBuilder. The size is taken from the first picture, so p
// is not needed. What Read returns is valid until the next Read.
func (v *VP8) BuildVideoEncoder(r video.Reader, _ prop.Media) (codec.ReadCloser, error) {
	if v.BitRate < 1000 || v.FrameRate <= 0 || v.FrameRate > 120 {
		return nil, fmt.Errorf("build VP8 encoder: %d bit/s at %v frames per second", v.BitRate, v.FrameRate)
	}
	e := &vp8Encoder{interval: time.Duration(float64(time.Second) / float64(v.FrameRate))}
	e.rate.Store(int64(v.BitRate))
	e.pictures = video.ToI420(video.ReaderFunc(func() (image.Image, func(), error) { return e.capture(r) }))
	return e, nil
}

// vp8Encoder is one VP8 stream. Read belongs to one goroutine; the other methods may be called by any.
type vp8Encoder struct {
	pictures video.Reader
	interval time.Duration
	wantKey  atomic.Bool
	rate     atomic.Int64 // bits per second that were asked for

	// Owned by the reading goroutine.
	captured mediacap.Time // of the picture that capture delivered last
	seq      uint32
	last     mediacap.Unit // what Describe returns
	lastKey  mediacap.Time
	payload  []byte

	mu     sync.Mutex // held while libvpx works, never while waiting for a picture
	enc    *C.alcove_vp8
	set    int64         // rate that libvpx knows
	origin mediacap.Time // presentation time 0 of enc
	closed bool
}

// capture reads a picture and takes its time off, since mediadevices' conversion knows only image.YCbCr.
func (e *vp8Encoder) capture(r video.Reader) (image.Image, func(), error) {
	img, release, err := r.Read()
	if err != nil {
		return nil, func() {}, err
	}
	if t, ok := img.(frame.Timed); ok {
		e.captured = t.CaptureTime()
	} else {
		e.captured = mediacap.Now()
	}
	if p, ok := img.(*frame.Picture); ok {
		img = &p.YCbCr
	}
	return img, release, nil
}

// Read implements codec.ReadCloser: it returns the next encoded picture. Pictures that libvpx drops to
// keep the rate, and pictures that are not later than their predecessor, are passed over.
func (e *vp8Encoder) Read() ([]byte, func(), error) {
	for {
		if e.isClosed() {
			return nil, func() {}, io.EOF
		}
		img, release, err := e.pictures.Read()
		if err != nil {
			return nil, func() {}, err
		}
		err = e.encode(img.(*image.YCbCr))
		release()
		if err != nil {
			return nil, func() {}, err
		}
		if len(e.payload) > 0 {
			return e.payload, func() {}, nil
		}
	}
}

func (e *vp8Encoder) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// encode leaves the encoded picture in e.payload, or nothing when there is none.
func (e *vp8Encoder) encode(img *image.YCbCr) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.payload = e.payload[:0]
	if e.closed {
		return io.EOF
	}
	if e.seq > 0 && e.captured.Sub(e.last.CaptureTime) < time.Microsecond {
		return nil
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	if err := checkPlanes(img, w, h); err != nil {
		return err
	}
	if err := e.configureLocked(w, h); err != nil {
		return err
	}
	sinceKey := e.captured.Sub(e.lastKey)
	force := e.wantKey.Load() && sinceKey >= KeyFrameGap || sinceKey >= KeyFrameInterval
	if force {
		e.wantKey.Store(false)
	}
	// All three planes are Go memory that C uses only during the call.
	if rc := C.alcove_vp8_encode(e.enc,
		(*C.uint8_t)(&img.Y[0]), (*C.uint8_t)(&img.Cb[0]), (*C.uint8_t)(&img.Cr[0]), C.int(img.YStride), C.int(img.CStride),
		C.int64_t(e.captured.Sub(e.origin).Microseconds()), C.ulong(e.interval.Microseconds()), cBool(force)); rc != 0 {
		return fmt.Errorf("encode VP8 picture: %s", C.GoString(C.vpx_codec_err_to_string(rc)))
	}
	if e.enc.n == 0 {
		if force {
			e.wantKey.Store(true)
		}
		return nil
	}
	e.payload = append(e.payload, unsafe.Slice((*byte)(e.enc.out), e.enc.n)...)
	e.describe(w, h, e.enc.key != 0)
	return nil
}

// checkPlanes makes sure that C, which gets bare addresses, stays inside the planes.
func checkPlanes(img *image.YCbCr, w, h int) error {
	if w < mediacap.MinSide || h < mediacap.MinSide || w > mediacap.MaxSide || h > mediacap.MaxSide {
		return fmt.Errorf("encode VP8 picture: size %d×%d", w, h)
	}
	cw, ch := (w+1)/2, (h+1)/2
	chroma := img.CStride*(ch-1) + cw
	if img.SubsampleRatio != image.YCbCrSubsampleRatio420 || img.YStride < w || img.CStride < cw ||
		len(img.Y) < img.YStride*(h-1)+w || len(img.Cb) < chroma || len(img.Cr) < chroma {
		return fmt.Errorf("encode VP8 picture: planes do not hold %d×%d", w, h)
	}
	return nil
}

func (e *vp8Encoder) describe(w, h int, key bool) {
	if key {
		e.lastKey = e.captured
	}
	e.last = mediacap.Unit{Codec: mediacap.VP8, KeyFrame: key, Seq: e.seq, CaptureTime: e.captured,
		Duration: e.interval, Width: uint16(w), Height: uint16(h)}
	e.seq++
}

// configureLocked makes libvpx ready for a picture of w×h at the rate that was asked for.
func (e *vp8Encoder) configureLocked(w, h int) error {
	rate := e.rate.Load()
	if e.enc != nil && int(e.enc.cfg.g_w) == w && int(e.enc.cfg.g_h) == h {
		if rate == e.set {
			return nil
		}
		if rc := C.alcove_vp8_rate(e.enc, C.uint(rate/1000)); rc != 0 {
			return fmt.Errorf("set VP8 rate: %s", C.GoString(C.vpx_codec_err_to_string(rc)))
		}
		e.set = rate
		return nil
	}
	e.destroyLocked()
	var rc C.vpx_codec_err_t
	fps := float64(time.Second) / float64(e.interval)
	e.enc = C.alcove_vp8_open(C.uint(w), C.uint(h), C.uint(rate/1000), C.double(fps), C.int(vp8Speed), &rc)
	if e.enc == nil {
		return fmt.Errorf("open VP8 encoder: %s", C.GoString(C.vpx_codec_err_to_string(rc)))
	}
	e.set, e.origin = rate, e.captured
	return nil
}

func (e *vp8Encoder) destroyLocked() {
	if e.enc != nil {
		C.alcove_vp8_close(e.enc)
		e.enc = nil
	}
}

// Close implements codec.ReadCloser. It waits for no picture; a Read that does returns io.EOF after it.
func (e *vp8Encoder) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	e.destroyLocked()
	return nil
}

// Controller implements codec.Controllable.
func (e *vp8Encoder) Controller() codec.EncoderController { return e }

// ForceKeyFrame implements codec.KeyFrameController.
func (e *vp8Encoder) ForceKeyFrame() error {
	e.wantKey.Store(true)
	return nil
}

// SetBitRate implements codec.BitRateController.
func (e *vp8Encoder) SetBitRate(bitsPerSecond int) error {
	if bitsPerSecond < 1000 {
		return errors.New("set VP8 rate: less than 1 kbit/s")
	}
	e.rate.Store(int64(bitsPerSecond))
	return nil
}

// Describe implements Controller.
func (e *vp8Encoder) Describe() mediacap.Unit { return e.last }

// Library implements Controller.
func (e *vp8Encoder) Library() string { return "libvpx " + C.GoString(C.vpx_codec_version_str()) }

func cBool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}
