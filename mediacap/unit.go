package mediacap

import (
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

// Codec is what a unit's payload is encoded with.
type Codec uint8

// The codecs that the wire carries.
const (
	VP8  Codec = 1 // RFC 6386, one frame
	H264 Codec = 2 // ITU-T H.264 Annex B, one access unit
	Opus Codec = 3 // RFC 6716, one packet
)

// OpusTOC is the first byte of every packet of sound: hybrid, superwideband, 20 ms, mono, one frame (RFC 6716
// section 3.1, configuration 13). It is fixed, as the packets' length is, since it is sent in the clear.
const OpusTOC = 13 << 3

// Medium is sound or picture.
type Medium uint8

// The media of a capture.
const (
	Video Medium = iota
	Audio
)

// Valid reports whether c is a codec of this wire.
func (c Codec) Valid() bool { return c >= VP8 && c <= Opus }

// Medium reports what c encodes.
func (c Codec) Medium() Medium {
	if c == Opus {
		return Audio
	}
	return Video
}

// MimeType returns the registered media type, as SDP and mediadevices name it.
func (c Codec) MimeType() string {
	switch c {
	case VP8:
		return "video/VP8"
	case H264:
		return "video/H264"
	case Opus:
		return "audio/opus"
	}
	return ""
}

func (c Codec) String() string {
	switch c {
	case VP8:
		return "vp8"
	case H264:
		return "h264"
	case Opus:
		return "opus"
	}
	return "unknown codec"
}

// ClockRate is the RTP clock in Hz (RFC 7741 section 4.1, RFC 6184 section 8.1, RFC 7587 section 4.1).
func (c Codec) ClockRate() uint32 {
	if c.Medium() == Audio {
		return 48000
	}
	return 90000
}

// RTPTime converts a capture time to c's RTP clock, modulo 2^32, without the error that adding up
// rounded durations would gather.
func (c Codec) RTPTime(t Time) uint32 {
	if t < 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(t), uint64(c.ClockRate()))
	q, _ := bits.Div64(hi%uint64(time.Second), lo, uint64(time.Second))
	return uint32(q)
}

// Time is a point of CLOCK_MONOTONIC in nanoseconds. All processes of a machine read the same clock.
type Time int64

// Now reads CLOCK_MONOTONIC.
func Now() Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		// clock_gettime(2) fails only for a clock that the kernel does not have.
		panic("read CLOCK_MONOTONIC: " + err.Error())
	}
	return Time(ts.Nano())
}

// Sub returns t-u.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t - u) }

// Add returns t+d.
func (t Time) Add(d time.Duration) Time { return t + Time(d) }

// Limits of the wire. They are far beyond what a room produces and keep a hostile sender's claims small.
const (
	MaxMessage  = 4 << 20         // bytes in a body, the 24 bytes in front of a payload included
	MaxPayload  = MaxMessage - 24 // bytes in a unit's payload
	MaxAudio    = 1275            // bytes in an Opus frame (RFC 6716 section 3.4, R2)
	MaxDuration = 2 * time.Second // of a unit
	MaxText     = 200             // bytes in a str
	MinSide     = 16              // pixels
	MaxSide     = 4096            // pixels
)

// Unit is one encoded access unit: a picture, or 20 ms of sound.
type Unit struct {
	Codec       Codec
	KeyFrame    bool          // a picture that needs no earlier one; false for sound
	Synthetic   bool          // made by a test source; the same in all units of a connection
	Seq         uint32        // per medium, one more for each unit the encoder made, modulo 2^32
	CaptureTime Time          // of the first sample or the picture's exposure; strictly rising per medium
	Duration    time.Duration // nominal, more than 0 and at most MaxDuration
	Width       uint16        // pixels; 0 for sound
	Height      uint16        // pixels; 0 for sound
	Payload     []byte

	// Lost is set by Reader: how many units of this medium are missing in front of this one.
	Lost uint32
}

// DBFS is a level relative to full scale: 0 is the loudest that the samples can say, MinLevel is silence.
type DBFS float32

// MinLevel is what a level of all-zero samples is reported as.
const MinLevel DBFS = -127

// Level is the microphone's level over the last 100 ms.
type Level struct {
	CaptureTime Time
	RMS         DBFS
	Peak        DBFS
}

// Hello is the first message of a capture process.
type Hello struct {
	Build     string // the program's version
	Synthetic bool   // everything on this connection comes from a test source
}

// State is what the capture process is doing.
type State uint8

// The states of a capture process. Stopped and Failed are final: the connection ends after them.
const (
	Starting State = 1
	Running  State = 2
	Stopped  State = 3
	Failed   State = 4
)

func (s State) String() string {
	switch s {
	case Starting:
		return "starting"
	case Running:
		return "running"
	case Stopped:
		return "stopped"
	case Failed:
		return "failed"
	}
	return "unknown state"
}

// VideoStream says where pictures come from and what encodes them.
type VideoStream struct {
	Codec         Codec
	Width, Height uint16
	FrameInterval time.Duration // nominal
	Device        string
	Encoder       string
}

// AudioStream says where sound comes from and what encodes it.
type AudioStream struct {
	Codec      Codec
	SampleRate uint32 // Hz
	Channels   uint8
	Device     string
	Encoder    string
}

// Status is sent when the state or a stream changes. Streams are set exactly when State is Running.
type Status struct {
	State  State
	Reason string // for people, why it failed or stopped; empty while it runs
	Video  VideoStream
	Audio  AudioStream
}

// Event is what a capture process sends: *Hello, *Status, *Unit or *Level.
type Event interface{ event() }

func (*Hello) event()  {}
func (*Status) event() {}
func (*Unit) event()   {}
func (*Level) event()  {}

// Request is what a daemon sends: KeyFrame, Rate or Stop.
type Request interface{ request() }

// KeyFrame asks for a picture that needs no earlier one, as soon as the encoder's own limit allows.
type KeyFrame struct{}

// Rate sets the encoders' targets in bits per second; 0 leaves one as it is.
type Rate struct {
	Video uint32
	Audio uint32
}

// Stop asks the capture process to close its devices and end.
type Stop struct{}

func (KeyFrame) request() {}
func (Rate) request()     {}
func (Stop) request()     {}

// What a Rate may ask for, in bits per second.
const (
	MinVideoRate = 30_000
	MaxVideoRate = 20_000_000
	MinAudioRate = 6_000
	MaxAudioRate = 128_000
)
