package encode

import (
	"errors"
	"fmt"
	"image"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/frame"
)

// Our tuning.
const (
	KeyFrameInterval = 30 * time.Second       // between key frames that nobody asked for
	KeyFrameGap      = 120 * time.Millisecond // least time between key frames; requests wait, none is lost
	// maxDropped is how many pictures in a row an encoder may drop to keep its rate. libvpx drops a few; one that
	// drops for seconds is broken.
	maxDropped = 60
	// ReplaceLimit is how long it may take from the picture that an encoder fails on to that picture from the next
	// encoder: the driver's own limit and the start of a software encoder.
	ReplaceLimit = 300 * time.Millisecond
)

// VP8 builds encoders of VP8.
type VP8 struct {
	BitRate   int     // bits per second
	FrameRate float32 // nominal, frames per second
}

// RTPCodec implements codec.VideoEncoderBuilder.
func (v *VP8) RTPCodec() *codec.RTPCodec { return codec.NewRTPVP8Codec(90000) }

// BuildVideoEncoder implements codec.VideoEncoderBuilder. The size is taken from the first picture, so p is not
// needed. What Read returns is valid until the next Read.
func (v *VP8) BuildVideoEncoder(r video.Reader, _ prop.Media) (codec.ReadCloser, error) {
	return newStream(r, mediacap.VP8, v.BitRate, v.FrameRate, Backends(mediacap.VP8, ""))
}

// H264 builds encoders of H.264 constrained baseline.
type H264 struct {
	BitRate   int       // bits per second
	FrameRate float32   // nominal, frames per second
	Backends  []Backend // to try, in this order; nil: Backends(mediacap.H264, "")
}

// RTPCodec implements codec.VideoEncoderBuilder.
func (h *H264) RTPCodec() *codec.RTPCodec { return codec.NewRTPH264Codec(90000) }

// BuildVideoEncoder implements codec.VideoEncoderBuilder, as VP8's does. Pictures of an odd size lose their last
// column or row, since H.264's cropping of 4:2:0 counts in pairs.
func (h *H264) BuildVideoEncoder(r video.Reader, _ prop.Media) (codec.ReadCloser, error) {
	backends := h.Backends
	if backends == nil {
		backends = Backends(mediacap.H264, "")
	}
	return newStream(r, mediacap.H264, h.BitRate, h.FrameRate, backends)
}

func newStream(r video.Reader, c mediacap.Codec, bitRate int, frameRate float32, backends []Backend) (*stream, error) {
	if bitRate < 1000 || !(frameRate > 0 && frameRate <= 120) {
		return nil, fmt.Errorf("build %v encoder: %d bit/s at %v frames per second", c, bitRate, frameRate)
	}
	if len(backends) == 0 {
		return nil, fmt.Errorf("build %v encoder: none is known", c)
	}
	s := &stream{codec: c, interval: time.Duration(float64(time.Second) / float64(frameRate)), fps: float64(frameRate),
		backends: backends}
	s.rate.Store(int64(bitRate))
	s.choice.Store(&Choice{Codec: c})
	s.pictures = video.ToI420(video.ReaderFunc(func() (image.Image, func(), error) { return s.capture(r) }))
	return s, nil
}

// stream is one encoded stream of pictures, whatever encodes it. Read belongs to one goroutine; the other methods may
// be called by any.
//
//	no encoder --first picture: probe backends in order--> encoding --another size: same backend again--> encoding
//	encoding --error: next backend, same picture, key frame--> encoding --none is left--> error
//
// A backend that failed is not tried again in this stream.
type stream struct {
	codec    mediacap.Codec
	pictures video.Reader
	interval time.Duration
	fps      float64
	wantKey  atomic.Bool
	rate     atomic.Int64 // bits per second that were asked for
	choice   atomic.Pointer[Choice]

	// Owned by the reading goroutine.
	captured mediacap.Time // of the picture that capture delivered last
	seq      uint32
	last     mediacap.Unit // what Describe returns
	lastKey  mediacap.Time
	payload  []byte

	mu       sync.Mutex // held while an encoder works, never while waiting for a picture; guards what follows
	backends []Backend  // the first is the current one; those that failed are gone
	probed   bool       // the first of backends has encoded
	enc      Encoder    // nil: none is open
	size     image.Point
	origin   mediacap.Time // time 0 of enc
	set      int64         // rate that enc knows
	dropped  int           // pictures in a row
	closed   bool
}

// capture reads a picture and takes its time off, since mediadevices' conversion knows only image.YCbCr.
func (s *stream) capture(r video.Reader) (image.Image, func(), error) {
	img, release, err := r.Read()
	if err != nil {
		return nil, func() {}, err
	}
	if t, ok := img.(frame.Timed); ok {
		s.captured = t.CaptureTime()
	} else {
		s.captured = mediacap.Now()
	}
	if p, ok := img.(*frame.Picture); ok {
		img = &p.YCbCr
	}
	return img, release, nil
}

// Read implements codec.ReadCloser: it returns the next encoded picture. Pictures that the encoder drops to keep the
// rate, and pictures that are not later than their predecessor, are passed over.
func (s *stream) Read() ([]byte, func(), error) {
	for {
		if s.isClosed() {
			return nil, func() {}, io.EOF
		}
		img, release, err := s.pictures.Read()
		if err != nil {
			return nil, func() {}, err
		}
		err = s.encode(img.(*image.YCbCr))
		release()
		if err != nil {
			return nil, func() {}, err
		}
		if len(s.payload) > 0 {
			return s.payload, func() {}, nil
		}
	}
}

func (s *stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// encode leaves the encoded picture in s.payload, or nothing when there is none.
func (s *stream) encode(img *image.YCbCr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.payload = s.payload[:0]
	if s.closed {
		return io.EOF
	}
	if s.seq > 0 && s.captured.Sub(s.last.CaptureTime) < time.Microsecond {
		return nil
	}
	size := image.Pt(img.Rect.Dx(), img.Rect.Dy())
	if s.codec == mediacap.H264 {
		size = image.Pt(size.X&^1, size.Y&^1)
	}
	if err := checkPlanes(img, size.X, size.Y); err != nil {
		return err
	}
	for {
		err := s.readyLocked(size)
		if err == nil {
			if err = s.pictureLocked(img); err == nil {
				return nil
			}
		}
		if !s.replaceLocked(err) {
			return fmt.Errorf("encode %v picture: %s", s.codec, s.choice.Load().Reason())
		}
	}
}

// pictureLocked encodes img with the encoder that is open.
func (s *stream) pictureLocked(img *image.YCbCr) error {
	sinceKey := s.captured.Sub(s.lastKey)
	force := s.origin == s.captured || s.wantKey.Load() && sinceKey >= KeyFrameGap || sinceKey >= KeyFrameInterval
	if force {
		s.wantKey.Store(false)
	}
	unit, key, err := s.enc.Encode(img, s.captured.Sub(s.origin), force)
	switch {
	case err != nil:
		return err
	case len(unit) == 0:
		if s.dropped++; s.dropped > maxDropped {
			return fmt.Errorf("%d pictures without output", s.dropped)
		}
		if force {
			s.wantKey.Store(true)
		}
		return nil
	case force && !key:
		return errors.New("a key frame was asked for and did not come")
	}
	s.dropped = 0
	s.payload = append(s.payload, unit...)
	if key {
		s.lastKey = s.captured
	}
	s.last = mediacap.Unit{Codec: s.codec, KeyFrame: key, Seq: s.seq, CaptureTime: s.captured, Duration: s.interval,
		Width: uint16(s.size.X), Height: uint16(s.size.Y)}
	s.seq++
	return nil
}

// readyLocked makes an encoder ready for a picture of this size at the rate that was asked for.
func (s *stream) readyLocked(size image.Point) error {
	rate := s.rate.Load()
	if s.enc != nil && s.size == size {
		if rate == s.set {
			return nil
		}
		s.set = rate
		return s.enc.SetRate(int(rate))
	}
	s.destroyLocked()
	format := Format{Width: size.X, Height: size.Y, FrameRate: s.fps, BitRate: int(rate)}
	b := s.backends[0]
	// Where nothing is left to choose, and in the middle of a stream, where there is no time, the picture is the probe.
	if !s.probed && s.seq == 0 && len(s.backends) > 1 {
		if err := Probe(b, format); err != nil {
			return err
		}
	}
	enc, err := b.Open(format)
	if err != nil {
		return err
	}
	s.enc, s.size, s.set, s.origin, s.dropped, s.probed = enc, size, rate, s.captured, 0, true
	next := *s.choice.Load()
	next.Backend, next.Name = b.Name, enc.Name()
	s.choice.Store(&next)
	return nil
}

// replaceLocked takes the failed backend away and reports whether another one is left.
func (s *stream) replaceLocked(cause error) bool {
	s.destroyLocked()
	next := *s.choice.Load()
	next.Failed = append(next.Failed[:len(next.Failed):len(next.Failed)], Failure{Backend: s.backends[0].Name, Reason: cause})
	next.Backend, next.Name = "", ""
	s.choice.Store(&next)
	s.backends, s.probed = s.backends[1:], false
	return len(s.backends) > 0
}

func (s *stream) destroyLocked() {
	if s.enc != nil {
		s.enc.Close()
		s.enc = nil
	}
}

// checkPlanes makes sure that C, which gets bare addresses, stays inside the planes.
func checkPlanes(img *image.YCbCr, w, h int) error {
	if w < mediacap.MinSide || h < mediacap.MinSide || w > mediacap.MaxSide || h > mediacap.MaxSide {
		return fmt.Errorf("encode picture: size %d×%d", w, h)
	}
	cw, ch := (w+1)/2, (h+1)/2
	chroma := img.CStride*(ch-1) + cw
	if img.SubsampleRatio != image.YCbCrSubsampleRatio420 || img.YStride < w || img.CStride < cw ||
		len(img.Y) < img.YStride*(h-1)+w || len(img.Cb) < chroma || len(img.Cr) < chroma {
		return fmt.Errorf("encode picture: planes do not hold %d×%d", w, h)
	}
	return nil
}

// Close implements codec.ReadCloser. It waits for no picture; a Read that does returns io.EOF after it.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.destroyLocked()
	return nil
}

// Controller implements codec.Controllable.
func (s *stream) Controller() codec.EncoderController { return s }

// ForceKeyFrame implements codec.KeyFrameController.
func (s *stream) ForceKeyFrame() error {
	s.wantKey.Store(true)
	return nil
}

// SetBitRate implements codec.BitRateController.
func (s *stream) SetBitRate(bitsPerSecond int) error {
	if bitsPerSecond < 1000 || bitsPerSecond > mediacap.MaxVideoRate {
		return fmt.Errorf("set %v rate: %d bit/s", s.codec, bitsPerSecond)
	}
	s.rate.Store(int64(bitsPerSecond))
	return nil
}

// Describe implements Controller.
func (s *stream) Describe() mediacap.Unit { return s.last }

// Library implements Controller.
func (s *stream) Library() string {
	if c := s.choice.Load(); c.Name != "" {
		return c.Name
	}
	return s.codec.String()
}

// Choice implements Chooser.
func (s *stream) Choice() Choice { return *s.choice.Load() }
