// Package frame carries captured pictures and sound, with the time of their capture, through
// mediadevices' readers. mediadevices passes an image.Image and a wave.Audio on as they are, so the
// drivers of this repository hand out these types and the encoders find the time again; what other
// drivers deliver has no time of its own and is stamped when it is read.
package frame

import (
	"image"

	"github.com/pion/mediadevices/pkg/wave"

	"github.com/alcove-room/alcove/mediacap"
)

// Timed is a picture or a piece of sound that knows when it was captured.
type Timed interface {
	// CaptureTime is the picture's exposure or the first sample.
	CaptureTime() mediacap.Time
}

// Picture is a captured picture.
type Picture struct {
	image.YCbCr
	Captured mediacap.Time
}

// CaptureTime implements Timed.
func (p *Picture) CaptureTime() mediacap.Time { return p.Captured }

// Sound is a captured piece of sound.
type Sound struct {
	wave.Int16Interleaved
	Captured mediacap.Time
}

// CaptureTime implements Timed.
func (s *Sound) CaptureTime() mediacap.Time { return s.Captured }
