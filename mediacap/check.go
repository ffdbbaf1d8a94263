package mediacap

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrProtocol is wrapped by every error about what a peer sent, or about what a caller asked a Writer to
// send. A daemon that sees it ends the capture process.
var ErrProtocol = errors.New("capture wire")

// VersionError says that the two processes come from releases that do not speak with each other.
type VersionError struct{ Peer, Own uint8 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("capture wire: the peer speaks version %d, this program speaks version %d: install both from the same release", e.Peer, e.Own)
}

// Is makes a VersionError an ErrProtocol.
func (e *VersionError) Is(target error) bool { return target == ErrProtocol }

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrProtocol}, args...)...)
}

// order holds what one direction of one connection has seen; Writer and Reader each keep one, so that the
// same rules bind both ends. Checks change it only when they pass.
type order struct {
	helloSeen bool
	synthetic bool
	state     State
	video     VideoStream
	audio     AudioStream
	media     [2]medium
}

// medium is the order of one medium's units.
type medium struct {
	started bool
	needKey bool // the next picture must be a key frame whatever its sequence number
	next    uint32
	last    Time
}

func (o *order) hello(h *Hello) error {
	if o.helloSeen {
		return refuse("second hello")
	}
	if err := checkText("build", h.Build); err != nil {
		return err
	}
	o.helloSeen, o.synthetic = true, h.Synthetic
	return nil
}

func (o *order) status(s *Status) error {
	switch {
	case !o.helloSeen:
		return refuse("status before hello")
	case s.State < Starting || s.State > Failed:
		return refuse("unknown state %d", s.State)
	case o.state == Stopped || o.state == Failed:
		return refuse("status after the end")
	}
	if err := checkText("reason", s.Reason); err != nil {
		return err
	}
	if s.State == Running {
		if err := checkStreams(s); err != nil {
			return err
		}
	} else if s.Video != (VideoStream{}) || s.Audio != (AudioStream{}) {
		return refuse("streams in state %v", s.State)
	}
	if s.Video.Codec != o.video.Codec || s.Video.Width != o.video.Width || s.Video.Height != o.video.Height {
		o.media[Video].needKey = true
	}
	o.state, o.video, o.audio = s.State, s.Video, s.Audio
	return nil
}

func checkStreams(s *Status) error {
	v, a := &s.Video, &s.Audio
	switch {
	case !v.Codec.Valid() || v.Codec.Medium() != Video:
		return refuse("codec %d for video", v.Codec)
	case !validSide(v.Width) || !validSide(v.Height):
		return refuse("picture of %d×%d", v.Width, v.Height)
	case v.FrameInterval <= 0 || v.FrameInterval > MaxDuration:
		return refuse("frame interval of %v", v.FrameInterval)
	case !a.Codec.Valid() || a.Codec.Medium() != Audio:
		return refuse("codec %d for audio", a.Codec)
	case a.SampleRate != 48000 || a.Channels != 1:
		return refuse("sound of %d Hz, %d channels", a.SampleRate, a.Channels)
	}
	for _, t := range [...]struct{ name, text string }{
		{"camera", v.Device}, {"video encoder", v.Encoder}, {"microphone", a.Device}, {"audio encoder", a.Encoder},
	} {
		if t.text == "" {
			return refuse("%s without a name", t.name)
		}
		if err := checkText(t.name, t.text); err != nil {
			return err
		}
	}
	return nil
}

// unit checks u and returns how many units are missing in front of it.
func (o *order) unit(u *Unit) (lost uint32, err error) {
	if o.state != Running {
		return 0, refuse("unit while not running")
	}
	if u.Synthetic != o.synthetic {
		return 0, refuse("unit and hello disagree about being synthetic")
	}
	if u.Duration <= 0 || u.Duration > MaxDuration {
		return 0, refuse("unit of %v", u.Duration)
	}
	if u.CaptureTime < 0 {
		return 0, refuse("capture time before the clock's start")
	}
	if err := o.shape(u); err != nil {
		return 0, err
	}
	m := &o.media[u.Codec.Medium()]
	if m.started {
		lost = u.Seq - m.next
		if int32(lost) < 0 {
			return 0, refuse("sequence number %d after %d", u.Seq, m.next-1)
		}
		if u.CaptureTime <= m.last {
			return 0, refuse("capture time goes backwards by %v", m.last.Sub(u.CaptureTime))
		}
	}
	if u.Codec.Medium() == Video && !u.KeyFrame && (!m.started || m.needKey || lost > 0) {
		return 0, refuse("picture that depends on one that was not sent")
	}
	*m = medium{started: true, next: u.Seq + 1, last: u.CaptureTime}
	return lost, nil
}

// shape checks what u says about itself against the announced streams.
func (o *order) shape(u *Unit) error {
	switch n := len(u.Payload); {
	case u.Codec == o.video.Codec:
		if u.Width != o.video.Width || u.Height != o.video.Height {
			return refuse("picture of %d×%d, announced %d×%d", u.Width, u.Height, o.video.Width, o.video.Height)
		}
		if n == 0 || n > MaxPayload {
			return refuse("picture of %d bytes", n)
		}
	case u.Codec == o.audio.Codec:
		if u.Width != 0 || u.Height != 0 || u.KeyFrame {
			return refuse("sound with the properties of a picture")
		}
		if n == 0 || n > MaxAudio {
			return refuse("sound of %d bytes", n)
		}
	default:
		return refuse("unit of codec %d was not announced", u.Codec)
	}
	return nil
}

func (o *order) level(l *Level) error {
	switch {
	case o.state != Running:
		return refuse("level while not running")
	case l.CaptureTime < 0:
		return refuse("capture time before the clock's start")
	case !(l.RMS >= MinLevel && l.RMS <= 0) || !(l.Peak >= MinLevel && l.Peak <= 0):
		return refuse("level of %v/%v dBFS", l.RMS, l.Peak)
	}
	return nil
}

func checkRate(r Rate) error {
	if r.Video != 0 && (r.Video < MinVideoRate || r.Video > MaxVideoRate) {
		return refuse("video rate of %d bit/s", r.Video)
	}
	if r.Audio != 0 && (r.Audio < MinAudioRate || r.Audio > MaxAudioRate) {
		return refuse("audio rate of %d bit/s", r.Audio)
	}
	return nil
}

func validSide(n uint16) bool { return n >= MinSide && n <= MaxSide }

// checkText keeps what a hostile sender writes from reaching logs and screens as control characters.
func checkText(name, s string) error {
	if len(s) > MaxText {
		return refuse("%s of %d bytes", name, len(s))
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable) {
		return refuse("%s with unprintable characters", name)
	}
	return nil
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// Text makes any string fit for Hello and Status: unprintable runes become spaces, the rest is cut at MaxText.
func Text(s string) string {
	s = strings.Map(func(r rune) rune {
		if unprintable(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if len(s) <= MaxText {
		return s
	}
	cut := MaxText
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

const _ = uint32(MaxDuration) // a unit's duration travels in 32 bits of nanoseconds
