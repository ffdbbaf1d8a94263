package e2ee

import (
	"fmt"
)

// Track is what the SFU says about a track. It is believed only where it makes us stricter.
type Track struct {
	Codec     Codec
	Encrypted bool // announced as AES-GCM
}

// Receiver opens the frames of one track of another member. Decrypt is called by one goroutine.
type Receiver struct {
	ring   *Ring
	codec  Codec
	window ivWindow
	buf    []byte // IV | ciphertext | tag, as Tink reads it
}

// NewReceiver returns a receiver for one track of the ring's member. A track not announced as encrypted is
// [ErrNotEncrypted], a kind that the member may not send [ErrUnannounced], another codec [ErrCodec].
func (r *Ring) NewReceiver(t Track) (*Receiver, error) {
	switch {
	case t.Codec.Kind() == 0:
		return nil, fmt.Errorf("receiving codec %d: %w", t.Codec, ErrCodec)
	case !t.Encrypted:
		return nil, fmt.Errorf("receiving %v: %w", t.Codec, ErrNotEncrypted)
	case r.config.Kinds&t.Codec.Kind() == 0:
		return nil, fmt.Errorf("receiving %v: %w", t.Codec, ErrUnannounced)
	}
	return &Receiver{ring: r, codec: t.Codec}, nil
}

// Codec returns the receiver's codec.
func (r *Receiver) Codec() Codec { return r.codec }

// Decrypt appends the opened frame to dst and returns the result; it is H.264 in Annex B form with start codes as the
// sender wrote them. dst must not overlap frame. On an error it returns nil, and the frame must not be shown or played
// in any form.
func (r *Receiver) Decrypt(dst, frame []byte) ([]byte, error) {
	out, err := r.open(dst, frame)
	if err != nil && r.ring.injected(frame) {
		err = ErrInjected
	}
	if err != nil {
		return nil, fmt.Errorf("opening frame: %w", err)
	}
	return out, nil
}

func (r *Receiver) open(dst, frame []byte) ([]byte, error) {
	clear, err := r.parse(frame)
	if err != nil {
		return nil, err
	}
	iv := [ivSize]byte(r.buf)
	slot, err := r.ring.slot(frame[len(frame)-1], &iv)
	if err != nil {
		return nil, err
	}
	var ssrc, count uint32
	structured := r.ring.config.IVs == LiveKitIV
	if structured {
		if ssrc, count, err = parseIV(&iv); err != nil {
			return nil, err
		}
		if err := r.window.check(slot.gen, ssrc, count); err != nil {
			return nil, err
		}
	}
	plain, err := slot.aead.Decrypt(r.buf, clear)
	if err != nil {
		return nil, ErrAuthentication
	}
	if err := r.ring.spend(slot, &iv); err != nil {
		return nil, err
	}
	if structured {
		r.window.advance(slot.gen, ssrc, count)
	}
	return append(append(dst, clear...), plain...), nil
}

// parse finds the clear part and puts IV | ciphertext | tag into r.buf.
func (r *Receiver) parse(frame []byte) (clear []byte, err error) {
	switch {
	case len(frame) > MaxFrameSize:
		return nil, ErrTooLarge
	case len(frame) <= Overhead:
		return nil, ErrShort
	}
	if tail := frame[len(frame)-trailerSize:]; tail[0] != ivSize || tail[1] >= Indices {
		return nil, ErrTrailer
	}
	n := opusClearSize
	switch r.codec {
	case VP8:
		n = vp8ClearSize(frame)
	case H264:
		if n, err = h264ClearSize(frame); err != nil {
			return nil, err
		}
	}
	if len(frame) <= n+Overhead {
		return nil, ErrShort
	}
	// The escapes lie before the trailer: an index of 0 to 3 stands behind a 12, not behind zeros.
	body := frame[n : len(frame)-trailerSize]
	r.buf = append(r.buf[:0], make([]byte, ivSize)...)
	if r.codec == H264 {
		if r.buf, err = appendUnescaped(r.buf, body); err != nil {
			r.buf = nil
			return nil, err
		}
		if len(r.buf) <= ivSize+tagSize+ivSize {
			return nil, ErrShort
		}
		copy(r.buf, r.buf[len(r.buf)-ivSize:])
		r.buf = r.buf[:len(r.buf)-ivSize]
		return frame[:n], nil
	}
	split := len(body) - ivSize
	copy(r.buf, body[split:])
	r.buf = append(r.buf, body[:split]...)
	return frame[:n], nil
}
