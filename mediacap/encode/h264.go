package encode

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"time"
)

// H.264 NAL unit types (ITU-T H.264 table 7-1).
const (
	nalSlice = 1
	nalIDR   = 5
	nalSPS   = 7
	nalPPS   = 8
)

// h264Encoder holds an encoder's output to the stream that the daemon seals and that every browser decodes, and puts it
// into its form: start codes of four bytes, parameter sets in front of each IDR picture and nowhere else, no other NAL
// units than slices (delimiters, filler and SEI are left out). An encoder that breaks the rules has failed:
//
//   - profile 66 with constraint_set1, progressive, 4:2:0, CAVLC, ids 0, POC type 0 or 2 (A.2.1.1, 7.3.2);
//   - pictures are IDR with I slices, or not IDR with P slices, numbered the same way in all of them (7.4.3);
//   - every picture is a reference and frame_num rises by one (7.4.3).
type h264Encoder struct {
	Encoder
	out      []byte
	sets     []byte // SPS and PPS with start codes
	sps, pps []byte
	bits     int // of frame_num
	number   uint32
	types    [2]int // slice_type of P and I slices; -1 while unknown
	begun    bool
	rbsp     [64]byte
}

func newH264(e Encoder) *h264Encoder { return &h264Encoder{Encoder: e, types: [2]int{-1, -1}} }

// Encode implements Encoder.
func (h *h264Encoder) Encode(img *image.YCbCr, at time.Duration, key bool) ([]byte, bool, error) {
	raw, _, err := h.Encoder.Encode(img, at, key)
	if err != nil || len(raw) == 0 {
		return nil, false, err
	}
	return h.accessUnit(raw)
}

// Name implements Encoder.
func (h *h264Encoder) Name() string { return "H.264, " + h.Encoder.Name() }

var errRules = errors.New("the encoder's H.264 breaks the stream's rules")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errRules}, args...)...)
}

// accessUnit judges one access unit and returns it in the stream's form, valid until the next call.
func (h *h264Encoder) accessUnit(raw []byte) (unit []byte, key bool, err error) {
	h.out = h.out[:0]
	slices, changed := 0, false
	for rest := raw; ; {
		var nal []byte
		if nal, rest = nextNAL(rest); nal == nil {
			break
		}
		switch kind := nal[0] & 0x1f; kind {
		case nalSPS:
			if !bytes.Equal(nal, h.sps) {
				h.sps, changed = append(h.sps[:0], nal...), true
			}
		case nalPPS:
			if !bytes.Equal(nal, h.pps) {
				h.pps, changed = append(h.pps[:0], nal...), true
			}
		case nalSlice, nalIDR:
			if slices == 0 {
				if key = kind == nalIDR; key {
					if err := h.parameters(); err != nil {
						return nil, false, err
					}
					h.out = append(h.out, h.sets...)
				}
				if err := h.first(nal, key, changed); err != nil {
					return nil, false, err
				}
			} else if key != (kind == nalIDR) || nal[0]&0x60 == 0 {
				return nil, false, broken("slices of two kinds in one picture")
			}
			slices++
			h.out = append(append(h.out, 0, 0, 0, 1), nal...)
		}
	}
	if slices == 0 {
		return nil, false, broken("no slice in %d bytes", len(raw))
	}
	return h.out, key, nil
}

// nextNAL returns the next NAL unit without start code and trailing zeros (annex B), and what follows; nil at the end.
func nextNAL(b []byte) (nal, rest []byte) {
	for {
		i := bytes.Index(b, []byte{0, 0, 1})
		if i < 0 {
			return nil, nil
		}
		b = b[i+3:]
		end := bytes.Index(b, []byte{0, 0, 1})
		if end < 0 {
			end = len(b)
		}
		if nal = bytes.TrimRight(b[:end], "\x00"); len(nal) > 0 {
			return nal, b[end:]
		}
		b = b[end:]
	}
}

// parameters judges the parameter sets and makes sets of them.
func (h *h264Encoder) parameters() error {
	if len(h.sps) < 5 || len(h.pps) < 2 {
		return broken("IDR picture without parameter sets")
	}
	// A.2.1.1: profile_idc 66 with constraint_set1_flag.
	if h.sps[1] != 66 || h.sps[2]&0x40 == 0 {
		return broken("profile %d, constraints %#02x", h.sps[1], h.sps[2])
	}
	r := bitReader{data: unescaped(h.rbsp[:0], h.sps[4:])}
	id, bits, poc := r.ue(), int(r.ue())+4, r.ue()
	if poc == 0 {
		r.ue()
	}
	refs, _, _, _, progressive := r.ue(), r.u(1), r.ue(), r.ue(), r.u(1)
	if r.short || id != 0 || bits > 16 || poc != 0 && poc != 2 || refs < 1 || refs > 16 || progressive != 1 {
		return broken("sequence parameters: id %d, frame_num of %d bits, POC type %d, %d references, progressive %d", id, bits, poc, refs, progressive)
	}
	r = bitReader{data: unescaped(h.rbsp[:0], h.pps[1:])}
	if ppsID, spsID, entropy, groups := r.ue(), r.ue(), r.u(2), r.ue(); r.short || ppsID != 0 || spsID != 0 || entropy != 0 || groups != 0 {
		return broken("picture parameters: ids %d and %d, entropy and field order %d, %d groups more", ppsID, spsID, entropy, groups)
	}
	h.bits = bits
	h.sets = append(append(h.sets[:0], 0, 0, 0, 1), h.sps...)
	h.sets = append(append(h.sets, 0, 0, 0, 1), h.pps...)
	return nil
}

// first judges a picture's first slice header (7.3.3) and its place in the stream.
func (h *h264Encoder) first(nal []byte, key, changed bool) error {
	switch {
	case nal[0]&0x80 != 0 || nal[0]&0x60 == 0:
		return broken("nal unit %#02x: not a reference", nal[0])
	case !h.begun && !key:
		return broken("the first picture is no IDR picture")
	case changed && !key:
		return broken("parameter sets in the middle")
	}
	r := bitReader{data: unescaped(h.rbsp[:0], nal[1:min(len(nal), 1+len(h.rbsp))])}
	mb, kind, pps, number := r.ue(), r.ue(), r.ue(), r.u(h.bits)
	base, want, known := uint32(0), (h.number+1)&(1<<h.bits-1), &h.types[0]
	if key {
		base, want, known = 2, 0, &h.types[1]
	}
	switch {
	case r.short || mb != 0 || pps != 0 || kind > 9 || kind%5 != base:
		return broken("slice header: macroblock %d, slice type %d, parameter set %d", mb, kind, pps)
	case *known >= 0 && *known != int(kind):
		return broken("slice type %d after %d", kind, *known)
	case number != want:
		return broken("frame_num %d, not %d", number, want)
	}
	*known, h.number, h.begun = int(kind), number, true
	return nil
}

// unescaped appends to dst, up to its capacity, what a NAL unit holds without its escapes (7.4.1.1).
func unescaped(dst, src []byte) []byte {
	zeros := 0
	for _, b := range src {
		if len(dst) == cap(dst) {
			break
		}
		if zeros >= 2 && b == 3 {
			zeros = 0
			continue
		}
		if zeros++; b != 0 {
			zeros = 0
		}
		dst = append(dst, b)
	}
	return dst
}

// bitReader reads the syntax elements of section 7.2; behind the end everything is 0 and short is set.
type bitReader struct {
	data  []byte
	at    int
	short bool
}

func (r *bitReader) u(n int) (v uint32) {
	for range n {
		if r.at >= 8*len(r.data) {
			r.short = true
			return 0
		}
		v = v<<1 | uint32(r.data[r.at>>3]>>(7-r.at&7)&1)
		r.at++
	}
	return v
}

func (r *bitReader) ue() uint32 {
	n := 0
	for r.u(1) == 0 {
		if n++; n > 31 || r.short {
			r.short = true
			return 0
		}
	}
	return 1<<n - 1 + r.u(n)
}
