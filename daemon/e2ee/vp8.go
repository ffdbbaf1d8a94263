package e2ee

import (
	"fmt"
	"slices"
)

// The clear part of a VP8 frame (RFC 6386 section 9.1; livekit-client UNENCRYPTED_BYTES).
const (
	vp8KeyClear   = 10
	vp8DeltaClear = 3
)

// vp8ClearSize returns how much of a VP8 frame is clear. The frame must not be empty.
func vp8ClearSize(frame []byte) int {
	if frame[0]&1 == 0 {
		return vp8KeyClear
	}
	return vp8DeltaClear
}

// vp8Clear checks and writes the uncompressed header. It has no state: a VP8 header does not say where in the stream
// the frame stands.
type vp8Clear struct{ sizes []Size }

func (v *vp8Clear) split(head, frame []byte) (clear, rest []byte, err error) {
	if len(frame) <= vp8DeltaClear {
		return nil, nil, fmt.Errorf("vp8 frame of %d bytes: %w", len(frame), ErrShort)
	}
	n := vp8ClearSize(frame)
	if len(frame) <= n {
		return nil, nil, fmt.Errorf("vp8 key frame of %d bytes: %w", len(frame), ErrShort)
	}
	// Frame tag, little-endian: 1 bit inter frame, 3 version, 1 show_frame, 19 first partition size.
	tag := uint32(frame[0]) | uint32(frame[1])<<8 | uint32(frame[2])<<16
	inter, version, show, partition := tag&1, tag>>1&7, tag>>4&1, tag>>5
	if version != 0 || show != 1 {
		return nil, nil, fmt.Errorf("vp8 version %d, show_frame %d: %w", version, show, ErrClearPart)
	}
	if partition == 0 || int(partition) > len(frame)-n {
		return nil, nil, fmt.Errorf("vp8 first partition of %d in %d bytes: %w", partition, len(frame), ErrClearPart)
	}
	tag = inter | 1<<4 | partition<<5
	head = append(head, byte(tag), byte(tag>>8), byte(tag>>16))
	if inter == 1 {
		return head, frame[n:], nil
	}
	if frame[3] != 0x9d || frame[4] != 0x01 || frame[5] != 0x2a {
		return nil, nil, fmt.Errorf("vp8 start code: %w", ErrClearPart)
	}
	// 14 bits of size and 2 of scaling each, little-endian; scaling is none, so the size is the whole number.
	w, h := int(frame[6])|int(frame[7])<<8, int(frame[8])|int(frame[9])<<8
	if !slices.Contains(v.sizes, Size{w, h}) {
		return nil, nil, fmt.Errorf("vp8 picture %d×%d: %w", w, h, ErrPicture)
	}
	head = append(head, 0x9d, 0x01, 0x2a, byte(w), byte(w>>8), byte(h), byte(h>>8))
	return head, frame[n:], nil
}

func (*vp8Clear) accept() {}
func (*vp8Clear) reject() {}
