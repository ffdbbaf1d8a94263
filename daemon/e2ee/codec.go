package e2ee

import (
	"fmt"
	"strings"
)

// Codec is a codec whose frames can be sealed.
type Codec uint8

// The codecs. VP9, AV1 and H.265 have no place here: livekit-client does not encrypt AV1, and the others are not sent.
const (
	VP8 Codec = iota + 1
	H264
	Opus
)

// ParseCodec reads a MIME type such as "video/VP8", in any case. Anything else is [ErrCodec].
func ParseCodec(mime string) (Codec, error) {
	for c := VP8; c <= Opus; c++ {
		if strings.EqualFold(mime, c.mime()) {
			return c, nil
		}
	}
	return 0, fmt.Errorf("codec %q: %w", mime, ErrCodec)
}

func (c Codec) mime() string {
	switch c {
	case VP8:
		return "video/VP8"
	case H264:
		return "video/H264"
	case Opus:
		return "audio/opus"
	}
	return "unknown"
}

// String returns the MIME type.
func (c Codec) String() string { return c.mime() }

// Kind returns whether the codec carries sound or picture; 0 for an unknown codec.
func (c Codec) Kind() Kind {
	switch c {
	case VP8, H264:
		return Video
	case Opus:
		return Audio
	}
	return 0
}

// Kind is what a track carries. Kinds are flags: Audio|Video is both.
type Kind uint8

// The kinds.
const (
	Audio Kind = 1 << iota
	Video
)

// Size is the size of a picture in pixels.
type Size struct{ Width, Height int }

// The format's constants (livekit-client src/e2ee/constants.ts; NIST SP 800-38D for the tag).
const (
	ivSize      = 12
	tagSize     = 16
	trailerSize = 2 // IV length, key index
	// Overhead is how much longer a sealed VP8 or Opus frame is. H.264 grows a little more: its ciphertext is escaped.
	Overhead = tagSize + ivSize + trailerSize
	// Indices is the number of keys that a receiver holds for one sender.
	Indices = 16
)

// Our limits.
const (
	// MaxFrames is how many frames one key seals, all tracks of a sender together: so many IVs a receiver remembers.
	// At 50 frames of sound and 30 of picture a second it is 27 minutes; keys change every 10. Random 96 bit IVs
	// collide within 2^17 frames with a probability below 2^-62.
	MaxFrames = 1 << 17
	// MaxFrameSize is the largest frame in bytes, sealed or not. A 720p key frame has about 300 kB at worst.
	MaxFrameSize = 4 << 20
)

// Index returns the key index of a generation.
func Index(gen uint32) uint8 { return uint8(gen % Indices) }
