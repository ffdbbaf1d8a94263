// Package encode is Alcove's own encoders as builders for mediadevices' CodecSelector, and a Reader that turns a
// mediadevices track into mediacap units. Pictures are H.264 (by the GPU through VA-API, else by openh264) or VP8
// (libvpx), sound is Opus; all but our own bridges are Debian's libraries.
//
// What the encoders promise, and mediadevices' own do not:
//
//   - A request (key frame, rate) is an atomic that the next frame picks up; it never waits for a frame,
//     not even when the camera stalls. Close waits at most for the frame that is being encoded.
//   - Time is the time of capture. The rate control counts with it too, so a busy machine makes no giant
//     frames, and it travels to the unit unchanged.
//   - An encoder is taken when it has encoded ten pictures, not when it is listed (Probe). Which one was
//     taken, and why not those before it, is said by Choice.
//   - An encoder that fails is replaced by the next of the same codec within ReplaceLimit: the picture it failed on
//     is encoded again, as a key frame. All H.264 encoders write the same parameter sets for a format.
//   - The rate control is told about a rate only when it changes, in the time base of its configuration.
//   - Every C context is destroyed, also when the picture changes its size. One exception: what a driver that
//     does not return may still write to is freed when it does.
//   - Key frames come on demand, at most one per KeyFrameGap, and every KeyFrameInterval.
//   - No heap allocation per frame.
//
// Sound is encoded at a constant size without DTX, because sizes of packets betray speech even when they
// are encrypted (RFC 6562 section 4).
package encode

import (
	"github.com/pion/mediadevices/pkg/codec"

	"github.com/alcove-room/alcove/mediacap"
)

// Controller is what the Controller method of this package's encoders returns.
type Controller interface {
	codec.KeyFrameController
	codec.BitRateController

	// Describe returns the properties of the unit that the last Read returned, without Payload. It is
	// called by the goroutine that reads.
	Describe() mediacap.Unit
	// Library names the library and its version, for the status and for people.
	Library() string
}
