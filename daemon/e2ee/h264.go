package e2ee

import (
	"bytes"
	"fmt"
	"slices"
)

var startCode = []byte{0, 0, 1}

// nalScanner walks the NAL units of an access unit in Annex B form, with start codes of three or four bytes.
type nalScanner struct {
	data       []byte
	next       int // just behind the start code of the next NAL unit; negative at the end
	start, end int // the current NAL unit without trailing zeros
}

// scanNALs refuses an access unit that does not begin with a start code.
func scanNALs(data []byte) (nalScanner, error) {
	i := bytes.Index(data[:min(len(data), 4)], startCode)
	if i < 0 || i == 1 && data[0] != 0 {
		return nalScanner{}, fmt.Errorf("h.264: no start code: %w", ErrMalformed)
	}
	return nalScanner{data: data, next: i + len(startCode)}, nil
}

func (s *nalScanner) scan() bool {
	if s.next < 0 {
		return false
	}
	s.start, s.end, s.next = s.next, len(s.data), -1
	if i := bytes.Index(s.data[s.start:], startCode); i >= 0 {
		s.end = s.start + i
		s.next = s.end + len(startCode)
	}
	for s.end > s.start && s.data[s.end-1] == 0 {
		s.end--
	}
	return true
}

func (s *nalScanner) nal() []byte { return s.data[s.start:s.end] }

// h264ClearSize returns how much of a sealed access unit is clear: all up to and with the first two bytes of the first
// slice.
func h264ClearSize(frame []byte) (int, error) {
	s, err := scanNALs(frame)
	if err != nil {
		return 0, err
	}
	for s.next >= 0 && s.next < len(frame) {
		if t := frame[s.next] & 0x1f; t == nalSlice || t == nalIDR {
			return s.next + 2, nil
		}
		s.scan()
	}
	return 0, fmt.Errorf("h.264: no slice: %w", ErrMalformed)
}

// h264Params are the parameter sets of a stream.
type h264Params struct {
	sps sps
	pps pps
}

// h264State is where an H.264 stream stands.
type h264State struct {
	params  h264Params
	encoded []byte // params as we write them; empty before the first
	open    bool   // the next IDR picture may bring other parameter sets
	synced  bool   // the last access unit was sent, so the next may refer to it
	number  uint32 // its frame_num
	// slice_type of the pinned stream's I and P slices, of which each has two values (7.4.3); -1 while unknown.
	typeI, typeP int8
}

// h264Clear checks and writes the clear part of access units. Nothing in it is copied but what the checks leave no
// choice in: the parameter sets are ours, pinned; every picture is a reference (nal_ref_idc 3 or 2), so that frame_num
// rises by one each time; pictures are IDR with I slices or non-IDR with P slices.
type h264Clear struct {
	sizes    []Size
	state    h264State
	after    h264State // what accept makes the state
	pinnedAt int64     // the clock at the last repin
	repinned bool
	joined   []byte // slices, when something between them was dropped
}

func (h *h264Clear) accept() { h.state = h.after }
func (h *h264Clear) reject() { h.state.synced = false }

func (h *h264Clear) repin(now int64) error {
	if h.repinned && now-h.pinnedAt < MinRepin {
		return fmt.Errorf("h.264 parameter sets: %w", ErrTooSoon)
	}
	h.pinnedAt, h.repinned = now, true
	h.state.open, h.state.synced = true, false
	return nil
}

func (h *h264Clear) split(head, frame []byte) (clear, rest []byte, err error) {
	au, err := h.parse(frame)
	if err != nil {
		return nil, nil, err
	}
	h.after = h.state
	if err := h.pin(&au); err != nil {
		return nil, nil, err
	}
	if len(h.after.encoded) == 0 || au.kind != nalIDR && !h.state.synced {
		return nil, nil, fmt.Errorf("h.264: %w", ErrNeedKeyFrame)
	}
	second, err := h.follow(&au)
	if err != nil {
		return nil, nil, err
	}
	first := byte(0x40 | nalSlice)
	if au.kind == nalIDR {
		head, first = append(head, h.after.encoded...), 0x60|nalIDR
	}
	return append(head, 0, 0, 0, 1, first, second), au.rest, nil
}

// accessUnit is what parse finds in a frame.
type accessUnit struct {
	sps    sps
	pps    pps
	hasSPS bool
	hasPPS bool
	kind   byte   // nalSlice or nalIDR
	prefix []byte // the first slice, whole
	rest   []byte // the slices but for the first two bytes
}

// parse sorts the NAL units of a frame: parameter sets before the slices, slices of one type; everything else is left
// out (delimiters, filler, SEI, whatever an encoder or somebody behind it may think of).
func (h *h264Clear) parse(frame []byte) (au accessUnit, err error) {
	s, err := scanNALs(frame)
	if err != nil {
		return au, err
	}
	from, to := 0, 0
	joined, gap := false, false
	for s.scan() {
		nal := s.nal()
		if len(nal) == 0 {
			continue
		}
		switch kind := nal[0] & 0x1f; kind {
		case nalSPS, nalPPS:
			if err := au.parameters(kind, nal); err != nil {
				return au, err
			}
		case nalSlice, nalIDR:
			switch {
			case nal[0]&0x80 != 0 || nal[0]&0x60 == 0 || len(nal) < 3 || au.kind != 0 && au.kind != kind:
				return au, fmt.Errorf("h.264 nal unit %#02x of %d bytes: %w", nal[0], len(nal), ErrClearPart)
			case au.kind == 0:
				au.kind, au.prefix, from = kind, nal, s.start+2
			case gap && !joined:
				h.joined, joined = append(h.joined[:0], frame[from:to]...), true
			}
			if joined {
				h.joined = append(append(h.joined, 0, 0, 0, 1), nal...)
			}
			to, gap = s.end, false
		default:
			gap = true
		}
	}
	if au.kind == 0 {
		return au, fmt.Errorf("h.264: no slice: %w", ErrClearPart)
	}
	au.rest = frame[from:to]
	if joined {
		au.rest = h.joined
	}
	return au, nil
}

// parameters takes a parameter set. One of each may come, before the slices.
func (au *accessUnit) parameters(kind byte, nal []byte) (err error) {
	switch {
	case au.kind != 0, kind == nalSPS && au.hasSPS, kind == nalPPS && au.hasPPS:
		return fmt.Errorf("h.264: parameter set out of place: %w", ErrParameters)
	case kind == nalSPS:
		au.sps, err = parseSPS(nal)
		au.hasSPS = true
	default:
		au.pps, err = parsePPS(nal)
		au.hasPPS = true
	}
	return err
}

// pin holds an access unit to the pinned parameter sets, or pins its own where that is allowed.
func (h *h264Clear) pin(au *accessUnit) error {
	if !au.hasSPS && !au.hasPPS {
		return nil
	}
	params := h.state.params
	if au.hasSPS {
		params.sps = au.sps
	}
	if au.hasPPS {
		params.pps = au.pps
	}
	if len(h.state.encoded) > 0 && params == h.state.params {
		return nil
	}
	first := len(h.state.encoded) == 0
	switch {
	case !first && !h.state.open:
		return fmt.Errorf("h.264: parameter sets changed: %w", ErrParameters)
	case au.kind != nalIDR, first && !(au.hasSPS && au.hasPPS):
		return fmt.Errorf("h.264: parameter sets out of place: %w", ErrParameters)
	case !slices.Contains(h.sizes, params.sps.size()):
		return fmt.Errorf("h.264 picture %v: %w", params.sps.size(), ErrPicture)
	}
	h.after = h264State{params: params, encoded: params.pps.append(params.sps.append(nil)), typeI: -1, typeP: -1}
	return nil
}

// follow checks that the first slice continues the stream, and returns its second byte. first_mb_in_slice, slice_type,
// pic_parameter_set_id and frame_num (section 7.3.3) fill at least that byte; each has one value that it may have.
func (h *h264Clear) follow(au *accessUnit) (byte, error) {
	var buf [8]byte // 25 bits at most are read
	r := bitReader{data: unescapePrefix(buf[:0], au.prefix[1:])}
	firstMB, sliceType, ppsID := r.ue(), r.ue(), r.ue()
	number := r.u(h.after.params.sps.log2MaxFrameNum)
	if r.short || firstMB != 0 || ppsID != 0 || sliceType > 9 {
		return 0, fmt.Errorf("h.264 slice header: %w", ErrClearPart)
	}
	pinned, base, expect := &h.after.typeP, uint32(0), (h.state.number+1)&(1<<h.after.params.sps.log2MaxFrameNum-1)
	if au.kind == nalIDR {
		pinned, base, expect = &h.after.typeI, 2, 0
		if h.after.open {
			h.after.open, h.after.typeI, h.after.typeP = false, -1, -1
		}
	}
	if sliceType%5 != base || *pinned >= 0 && int8(sliceType) != *pinned {
		return 0, fmt.Errorf("h.264 slice type %d: %w", sliceType, ErrClearPart)
	}
	if number != expect {
		return 0, fmt.Errorf("h.264 frame_num %d, not %d: %w", number, expect, ErrNeedKeyFrame)
	}
	*pinned, h.after.synced, h.after.number = int8(sliceType), true, number
	return r.data[0], nil
}

// unescapePrefix fills dst's capacity from the beginning of a slice, without its escapes. What the slice holds after
// that is sealed, so whether it is well-formed is the decoder's business.
func unescapePrefix(dst, src []byte) []byte {
	run := 0
	for _, b := range src {
		if len(dst) == cap(dst) {
			break
		}
		if run >= 2 && b == 3 {
			run = 0
			continue
		}
		if b == 0 {
			run++
		} else {
			run = 0
		}
		dst = append(dst, b)
	}
	return dst
}
