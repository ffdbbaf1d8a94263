package encode

import (
	"errors"
	"fmt"
	"image"
	"strings"
	"time"

	"github.com/alcove-room/alcove/mediacap"
)

// Choice is what encodes a stream, and why.
type Choice struct {
	Codec   mediacap.Codec
	Backend string // name of the method; empty before the first picture and after the last one failed
	Name    string // of the encoder, for people
	Failed  []Failure
}

// Failure is a backend that was not taken, or not kept.
type Failure struct {
	Backend string
	Reason  error
}

// Reason says in one line why this encoder encodes: which ones before it do not work, and why.
func (c Choice) Reason() string {
	if len(c.Failed) == 0 {
		return "first in order"
	}
	parts := make([]string, len(c.Failed))
	for i, f := range c.Failed {
		parts[i] = f.Backend + ": " + f.Reason.Error()
	}
	return strings.Join(parts, "; ")
}

// Chooser is implemented by the controllers of this package's video encoders. It may be used by any goroutine.
type Chooser interface{ Choice() Choice }

// Auto chooses a codec for a format: H.264 where a GPU encodes it, which costs the least; else VP8, of which no patent
// holder wants anything. It returns the ways to encode it and those that failed.
func Auto(node string, f Format) (mediacap.Codec, []Backend, []Failure) {
	var failed []Failure
	hardware := VAAPI(node)
	for i, b := range hardware {
		err := Probe(b, f)
		if err == nil {
			return mediacap.H264, append(hardware[i:len(hardware):len(hardware)], OpenH264()), failed
		}
		failed = append(failed, Failure{Backend: b.Name, Reason: err})
	}
	return mediacap.VP8, Backends(mediacap.VP8, node), failed
}

const (
	probePictures = 10
	// probeLimit is how long a probe may take: more than any working encoder, less than a person's patience.
	probeLimit = 3 * time.Second
)

// Probe encodes ten pictures: listing encoders and entry points proves nothing, only encoding does. It asks for another
// rate and for a key frame on the way, and wants each picture's output at once, in the rules of the stream.
func Probe(b Backend, f Format) error {
	began := time.Now()
	e, err := b.Open(f)
	if err != nil {
		return err
	}
	defer e.Close()
	img := image.NewYCbCr(image.Rect(0, 0, f.Width, f.Height), image.YCbCrSubsampleRatio420)
	got := 0
	for i := range probePictures {
		pattern(img, i)
		if i == probePictures/2 {
			if err := e.SetRate(max(f.BitRate/2, mediacap.MinVideoRate)); err != nil {
				return fmt.Errorf("probe: %w", err)
			}
		}
		wantKey := i == 0 || i == probePictures-3
		unit, key, err := e.Encode(img, time.Duration(float64(i)*float64(time.Second)/f.FrameRate), wantKey)
		switch {
		case err != nil:
			return fmt.Errorf("probe: picture %d: %w", i, err)
		case wantKey && !key:
			return fmt.Errorf("probe: picture %d is no key frame", i)
		case !wantKey && key:
			return fmt.Errorf("probe: picture %d is a key frame that nobody asked for", i)
		case time.Since(began) > probeLimit:
			return fmt.Errorf("probe: %d pictures took more than %v", i+1, probeLimit)
		}
		if len(unit) > 0 {
			got++
		}
	}
	if got < probePictures/2 {
		return errors.New("probe: most pictures had no output")
	}
	return nil
}

// pattern is a picture with edges that move: content that an encoder cannot skip.
func pattern(img *image.YCbCr, n int) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	for y := range h {
		row := img.Y[y*img.YStride:][:w]
		for x := range row {
			row[x] = uint8(64 + (x+4*n)*96/w + 32*((x/16+y/16+n)&1))
		}
	}
	for i := range img.Cb {
		img.Cb[i], img.Cr[i] = 120, 136
	}
}
