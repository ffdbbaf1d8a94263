package encode

import (
	"errors"
	"image"
	"time"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/encode/openh264"
	"github.com/alcove-room/alcove/mediacap/encode/vaapi"
	"github.com/alcove-room/alcove/mediacap/encode/vpx"
)

// Encoder is one running encoder of one codec and picture size. It belongs to one goroutine.
type Encoder interface {
	// Encode encodes a 4:2:0 picture of the encoder's size, whose planes are known to hold it. at rises; it is the
	// time since the encoder's first picture. The first picture, and each that key asks for, is a key frame. The
	// result is valid until the next call; it is empty when the encoder dropped the picture to keep the rate. No
	// picture is kept back: what Encode returns is this one. After an error only Close is called.
	Encode(img *image.YCbCr, at time.Duration, key bool) (unit []byte, isKey bool, err error)
	// SetRate holds from the next picture on.
	SetRate(bitsPerSecond int) error
	// Name is the library, its version and what drives it, for people.
	Name() string
	// Close frees everything.
	Close()
}

// Format is what an encoder is opened for.
type Format struct {
	Width, Height int     // pixels
	FrameRate     float64 // nominal, per second
	BitRate       int     // bits per second
}

// Backend is one way to encode a codec.
type Backend struct {
	Name  string // of the method: "vaapi", "openh264", "libvpx"
	Codec mediacap.Codec
	Open  func(Format) (Encoder, error)
}

// Backends returns the ways to encode c, the best first: hardware, then software. An empty node means every render
// node of the machine.
func Backends(c mediacap.Codec, node string) []Backend {
	switch c {
	case mediacap.VP8:
		return []Backend{Libvpx()}
	case mediacap.H264:
		return append(VAAPI(node), OpenH264())
	}
	return nil
}

// Libvpx is VP8 in software.
func Libvpx() Backend {
	return Backend{Name: "libvpx", Codec: mediacap.VP8, Open: func(f Format) (Encoder, error) {
		e, err := vpx.Open(f.Width, f.Height, f.FrameRate, f.BitRate)
		if err != nil {
			return nil, err
		}
		return e, nil
	}}
}

// OpenH264 is H.264 in software.
func OpenH264() Backend {
	return Backend{Name: "openh264", Codec: mediacap.H264, Open: func(f Format) (Encoder, error) {
		e, err := openh264.Open(f.Width, f.Height, f.FrameRate, f.BitRate, Level(f))
		if err != nil {
			return nil, err
		}
		return newH264(e), nil
	}}
}

// VAAPI is H.264 in hardware: one way for each render node and entry point, since which of them exists is known only
// when it is opened.
func VAAPI(node string) []Backend {
	nodes := []string{node}
	if node == "" {
		nodes = vaapi.Nodes()
	}
	if len(nodes) == 0 {
		return []Backend{{Name: "vaapi", Codec: mediacap.H264, Open: func(Format) (Encoder, error) {
			return nil, errors.New("no render node: this machine has no GPU, or this user may not see it")
		}}}
	}
	var all []Backend
	for _, n := range nodes {
		for _, p := range []vaapi.EntryPoint{vaapi.EncSlice, vaapi.EncSliceLP} {
			all = append(all, Backend{Name: "vaapi", Codec: mediacap.H264, Open: func(f Format) (Encoder, error) {
				e, err := vaapi.Open(vaapi.Config{Node: n, EntryPoint: p, Width: f.Width, Height: f.Height,
					FrameRate: f.FrameRate, BitRate: f.BitRate, Level: Level(f)})
				if err != nil {
					return nil, err
				}
				return newH264(e), nil
			}})
		}
	}
	return all
}

// Level is the level_idc (ITU-T H.264 table A-1) that every H.264 encoder here announces for a format: the least of 31
// (what SDP's profile-level-id 42e01f says), 40, 42, 51 and 52 that holds its macroblocks. It does not depend on the rate, so a new rate
// brings no new parameter sets, nor does another encoder.
func Level(f Format) int {
	mbs := (f.Width + 15) / 16 * ((f.Height + 15) / 16)
	perSecond := float64(mbs) * f.FrameRate
	for _, l := range []struct {
		level, mbs int
		perSecond  float64
	}{{31, 3600, 108_000}, {40, 8192, 245_760}, {42, 8704, 522_240}, {51, 36_864, 983_040}} {
		if mbs <= l.mbs && perSecond <= l.perSecond {
			return l.level
		}
	}
	return 52
}
