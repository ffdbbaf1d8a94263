// Package vaapi encodes H.264 constrained baseline on a GPU through libva (MIT), without FFmpeg between: a render node,
// one of the two encoding entry points, constant rate with a buffer of one second, rate and key frames followed from one
// picture to the next (FFmpeg's h264_vaapi ignores a new rate), and no picture kept back.
//
// The stream is what daemon/e2ee seals. Its parameter sets are those that openh264 writes for the same format, so that
// the one can replace the other within a stream. Drivers that take packed headers get ours; others write theirs from the
// same values, and the caller checks what comes.
//
// A driver may fail at any call: Open and Encode return an error that names the call, and Close frees all that was made
// until then. A driver may also never return: Encode gives up after Limit, and what the driver may still write
// to is freed only when it does return.
//
// An Encoder belongs to one goroutine.
package vaapi

// #cgo pkg-config: libva libva-drm
// #include <stdlib.h>
// #include "va.h"
import "C"

import (
	"errors"
	"fmt"
	"image"
	"math"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unsafe"
)

const (
	// Limit is how long the driver may take for a picture unless Config says otherwise. A working one takes a tenth of it; more is longer than the
	// gap that a person is to see when an encoder is replaced.
	Limit = 200 * time.Millisecond
	// firstLimit is for an encoder's first picture, at which a driver may load firmware and build kernels.
	firstLimit = 2 * time.Second
)

// EntryPoint is one of the two ways into a GPU's H.264 encoder. Intel's free driver has only the low-power one; older
// hardware and AMD's have only the other.
type EntryPoint int

// The entry points of libva.
const (
	EncSlice   EntryPoint = C.VAEntrypointEncSlice
	EncSliceLP EntryPoint = C.VAEntrypointEncSliceLP
)

func (p EntryPoint) String() string {
	switch p {
	case EncSlice:
		return "EncSlice"
	case EncSliceLP:
		return "EncSliceLP"
	}
	return fmt.Sprintf("entry point %d", int(p))
}

// Config says what to open.
type Config struct {
	Node          string // render node; never card0, which would need more rights
	EntryPoint    EntryPoint
	Width, Height int           // pixels, even
	FrameRate     float64       // nominal, per second
	BitRate       int           // bits per second
	Level         int           // level_idc of ITU-T H.264 table A-1
	Limit         time.Duration // for a picture; 0: Limit
}

// Error is a step that failed.
type Error struct {
	Step   string // a function of libva, or what was looked for
	Reason string
}

func (e *Error) Error() string { return e.Step + ": " + e.Reason }

// ErrHung means that the driver did not return within the limit.
var ErrHung = errors.New("the driver does not return")

// Nodes returns the machine's render nodes.
func Nodes() []string {
	nodes, err := filepath.Glob("/dev/dri/renderD*")
	if err != nil { // only a malformed pattern is an error
		return nil
	}
	slices.Sort(nodes)
	return nodes
}

// Encoder is one running encoder of one picture size.
type Encoder struct {
	c     *C.alcove_va
	cfg   Config
	limit time.Duration
	hung  bool
	timer *time.Timer
	ask   chan request
	done  chan answer
	freed chan struct{} // closed when everything is
}

// request and answer pass between Encode and the goroutine that waits for the driver.
type request struct {
	bitRate int
	key     bool
}

type answer struct {
	result C.alcove_va_result
	err    error
}

// Open opens an encoder. Only encoding tells whether it works: see encode.Probe.
func Open(cfg Config) (*Encoder, error) {
	if cfg.Width < 16 || cfg.Height < 16 || cfg.Width > 4096 || cfg.Height > 4096 || cfg.Width%2 != 0 || cfg.Height%2 != 0 {
		return nil, fmt.Errorf("open %v: size %d×%d", cfg.EntryPoint, cfg.Width, cfg.Height)
	}
	if cfg.Limit == 0 {
		cfg.Limit = Limit
	}
	num, den := rational(cfg.FrameRate)
	node := C.CString(cfg.Node)
	defer C.free(unsafe.Pointer(node))
	c := C.alcove_va_config{node: node, entrypoint: C.int(cfg.EntryPoint), w: C.uint(cfg.Width), h: C.uint(cfg.Height),
		fps_num: C.uint(num), fps_den: C.uint(den), bps: C.uint(cfg.BitRate), level: C.uint(cfg.Level),
		timeout_ms: C.uint(cfg.Limit.Milliseconds() * 9 / 10)} // a driver that keeps to it can be freed
	var failure C.alcove_va_error
	e := &Encoder{cfg: cfg, limit: max(firstLimit, cfg.Limit), ask: make(chan request), done: make(chan answer, 1), freed: make(chan struct{})}
	if e.c = C.alcove_va_open(&c, &failure); e.c == nil {
		return nil, fmt.Errorf("open %v on %s: %w", cfg.EntryPoint, cfg.Node, failed(&failure))
	}
	e.timer = time.NewTimer(time.Hour)
	e.timer.Stop()
	go e.serve(e.c)
	return e, nil
}

func failed(e *C.alcove_va_error) error {
	return &Error{Step: C.GoString(e.step), Reason: strings.ToLower(C.GoString(C.alcove_va_error_text(e)))}
}

// rational makes a frame rate of it that the driver can be told.
func rational(fps float64) (num, den int) {
	if whole := math.Round(fps); math.Abs(fps-whole) < 0.001 {
		return int(whole), 1
	}
	return int(math.Round(fps * 1001)), 1001
}

// serve calls the driver, which may never return, until ask is closed, and then frees everything.
func (e *Encoder) serve(c *C.alcove_va) {
	// One thread for all pictures: some drivers keep state per thread, and libva's trace is a file per thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(e.freed)
	defer C.alcove_va_close(c)
	var out C.alcove_va_result
	var failure C.alcove_va_error
	for r := range e.ask {
		force := C.int(0)
		if r.key {
			force = 1
		}
		a := answer{}
		if C.alcove_va_encode(c, C.uint(r.bitRate), force, &out, &failure) != 0 {
			a.err = failed(&failure)
		} else {
			a.result = out
		}
		e.done <- a
	}
}

// Encode encodes a 4:2:0 picture of the encoder's size whose planes hold it. The result is what the driver wrote, valid
// until the next call, empty when it dropped the picture.
func (e *Encoder) Encode(img *image.YCbCr, _ time.Duration, key bool) (unit []byte, isKey bool, err error) {
	if e.hung {
		return nil, false, ErrHung
	}
	// From here on the driver has a copy: the caller's planes may go away while it hangs.
	C.alcove_va_stage(e.c, (*C.uint8_t)(&img.Y[0]), (*C.uint8_t)(&img.Cb[0]), (*C.uint8_t)(&img.Cr[0]), C.int(img.YStride), C.int(img.CStride))
	e.ask <- request{e.cfg.BitRate, key}
	e.timer.Reset(e.limit)
	select {
	case a := <-e.done:
		e.timer.Stop()
		e.limit = e.cfg.Limit
		if a.err != nil {
			return nil, false, fmt.Errorf("%v on %s: %w", e.cfg.EntryPoint, e.cfg.Node, a.err)
		}
		return unsafe.Slice((*byte)(a.result.unit), a.result.n), a.result.key != 0, nil
	case <-e.timer.C:
		e.hung = true
		return nil, false, fmt.Errorf("%v on %s: %w", e.cfg.EntryPoint, e.cfg.Node, ErrHung)
	}
}

// SetRate holds from the next picture on.
func (e *Encoder) SetRate(bitsPerSecond int) error {
	e.cfg.BitRate = bitsPerSecond
	return nil
}

// Name is the driver, the entry point, the node, and who writes the headers.
func (e *Encoder) Name() string {
	headers := "its headers"
	if C.alcove_va_packs(e.c) != 0 {
		headers = "our headers"
	}
	return fmt.Sprintf("VA-API %v, %s, %s, %s", e.cfg.EntryPoint, C.GoString(C.alcove_va_vendor(e.c)), filepath.Base(e.cfg.Node), headers)
}

// Close frees everything; of a driver that hangs, when it returns.
func (e *Encoder) Close() {
	if e.c == nil {
		return
	}
	close(e.ask)
	if !e.hung {
		<-e.freed
	}
	e.c = nil
}
