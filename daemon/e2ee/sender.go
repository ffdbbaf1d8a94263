package e2ee

import (
	"fmt"
	"slices"
	"sync"
)

// MinRepin is the least time between two changes of H.264 parameter sets, in nanoseconds: what a hostile encoder can say
// in them is bounded to a few bits in this time.
const MinRepin = 10_000_000_000

// Sender seals the frames of one track. It starts without a key and refuses everything until it gets one.
//
// Encrypt is called by one goroutine, the other methods by any. When ClearKey or SetKey has returned, no later frame is
// sealed under the former key.
type Sender struct {
	codec Codec
	check clearPart

	mu    sync.Mutex // held while a frame is sealed
	key   *SendKey   // nil: nothing is sent
	last  *SendKey   // the key of gen
	gen   uint32
	begun bool // a generation was set before; gen is the highest
	head  []byte
}

// clearPart is what a codec knows about the part of its frames that is sent clear.
//
// split appends the clear part of a frame to head, written anew, and returns it with the rest that is to be sealed; rest
// is never empty. It must not keep frame. Its changes of state count only after accept; after reject the stream has a gap.
type clearPart interface {
	split(head, frame []byte) (clear, rest []byte, err error)
	accept()
	reject()
}

// NewVP8Sender returns a sender of VP8 pictures of the given sizes: those that the daemon itself may ask the encoder for.
func NewVP8Sender(sizes ...Size) *Sender {
	return newSender(VP8, &vp8Clear{sizes: slices.Clone(sizes)})
}

// NewH264Sender returns a sender of H.264 constrained baseline pictures of the given sizes: those that the daemon itself
// may ask the encoder for. Its first access unit must be an IDR picture with parameter sets; they are then pinned until
// [Sender.Repin].
func NewH264Sender(sizes ...Size) *Sender {
	return newSender(H264, &h264Clear{sizes: slices.Clone(sizes)})
}

// NewOpusSender returns a sender of Opus packets that all have this TOC byte (RFC 6716 section 3.1) and this length in
// bytes, TOC included: what constant bit rate promises is enforced here, since lengths betray speech (RFC 6562).
func NewOpusSender(toc byte, length int) *Sender {
	return newSender(Opus, &opusClear{toc: toc, length: length})
}

func newSender(codec Codec, check clearPart) *Sender {
	return &Sender{codec: codec, check: check, head: make([]byte, 0, 256)}
}

// Codec returns the sender's codec.
func (s *Sender) Codec() Codec { return s.codec }

// SetKey makes the sender use the key of a generation, under key index gen modulo 16. Generations rise; only the current
// one may be set again, after ClearKey, with its own key: all else is [ErrGeneration].
func (s *Sender) SetKey(gen uint32, key *SendKey) error {
	if key == nil {
		return fmt.Errorf("setting send key: %w", ErrNoKey)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.begun && (gen < s.gen || gen == s.gen && s.last != key):
		return fmt.Errorf("setting send key %d after %d: %w", gen, s.gen, ErrGeneration)
	case s.begun && gen != s.gen && s.last == key:
		return fmt.Errorf("setting send key %d: %w", gen, ErrKeyReused)
	}
	s.key, s.last, s.gen, s.begun = key, key, gen, true
	return nil
}

// ClearKey takes the key away: every frame is refused until SetKey.
func (s *Sender) ClearKey() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = nil
}

// Encrypt appends the sealed frame to dst and returns the result. With [Overhead] bytes to spare in dst (for H.264 some
// 300 more) it allocates nothing but what Tink does. dst must not overlap frame. On an error it returns nil, and
// the frame must not be sent in any form.
func (s *Sender) Encrypt(dst, frame []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := s.sealLocked(dst, frame)
	if err != nil {
		s.check.reject()
		return nil, err
	}
	s.check.accept()
	return out, nil
}

func (s *Sender) sealLocked(dst, frame []byte) ([]byte, error) {
	if s.key == nil {
		return nil, fmt.Errorf("sealing frame: %w", ErrNoKey)
	}
	if len(frame) > MaxFrameSize {
		return nil, fmt.Errorf("sealing frame of %d bytes: %w", len(frame), ErrTooLarge)
	}
	clear, rest, err := s.check.split(s.head[:0], frame)
	if err != nil {
		return nil, fmt.Errorf("sealing frame: %w", err)
	}
	if err := s.key.spend(); err != nil {
		return nil, err
	}
	sealed, err := s.key.aead.Encrypt(rest, clear) // IV | ciphertext | tag, in a buffer of its own
	if err != nil {
		return nil, fmt.Errorf("sealing frame: %w", err)
	}
	dst = slices.Grow(dst, len(clear)+len(sealed)+trailerSize)
	dst = append(dst, clear...)
	trailer := [trailerSize]byte{ivSize, Index(s.gen)}
	if s.codec == H264 {
		dst, run := appendEscaped(dst, sealed[ivSize:], 0)
		dst, run = appendEscaped(dst, sealed[:ivSize], run)
		dst, _ = appendEscaped(dst, trailer[:], run)
		return dst, nil
	}
	dst = append(dst, sealed[ivSize:]...)
	dst = append(dst, sealed[:ivSize]...)
	return append(dst, trailer[:]...), nil
}

// Repin lets an H.264 sender take new parameter sets with the next key frame: when the encoder was started again, or was
// asked for another size. now is any clock in nanoseconds that does not go back; at most one call in [MinRepin] succeeds, others are
// [ErrTooSoon]. For other codecs it does nothing.
func (s *Sender) Repin(now int64) error {
	h, ok := s.check.(*h264Clear)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.repin(now)
}
