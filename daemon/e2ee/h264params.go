package e2ee

import (
	"fmt"
	"slices"
)

// Parameter sets longer than this are refused unread: those of constrained baseline take some 30 bytes.
const (
	maxSPS = 256
	maxPPS = 64
)

// H.264 NAL unit types (ITU-T H.264 table 7-1).
const (
	nalSlice = 1
	nalIDR   = 5
	nalSPS   = 7
	nalPPS   = 8
)

// levels are the level_idc of table A-1 that are accepted.
var levels = []byte{10, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42, 50, 51, 52}

// sps holds the fields of a sequence parameter set (ITU-T H.264 section 7.3.2.1.1) that a constrained baseline stream is
// free to choose. What is not here is fixed: see append.
type sps struct {
	level           byte
	log2MaxFrameNum int
	pocType         uint32 // 0 or 2
	log2MaxPOC      uint32 // pocType 0
	refFrames       uint32
	mbWidth         uint32
	mbHeight        uint32
	cropRight       uint32 // in units of 2 pixels
	cropBottom      uint32
}

func (s *sps) size() Size {
	return Size{int(16*s.mbWidth - 2*s.cropRight), int(16*s.mbHeight - 2*s.cropBottom)}
}

// parseSPS reads a NAL unit of type 7, header included. Anything that is not constrained baseline, 4:2:0, progressive,
// with id 0 is [ErrParameters]. What follows the cropping (the VUI) is not read: ours takes its place.
func parseSPS(nal []byte) (sps, error) {
	var s sps
	if len(nal) > maxSPS {
		return s, fmt.Errorf("sps of %d bytes: %w", len(nal), ErrParameters)
	}
	rbsp, err := appendUnescaped(make([]byte, 0, maxSPS), nal)
	if err != nil || len(rbsp) < 5 || rbsp[0]&0x9f != nalSPS || rbsp[0]&0x60 == 0 {
		return s, fmt.Errorf("sps: not a nal unit: %w", ErrParameters)
	}
	// Section A.2.1.1: profile_idc 66 with constraint_set1_flag; the two reserved bits are zero.
	if rbsp[1] != 66 || rbsp[2]&0x40 == 0 || rbsp[2]&0x03 != 0 {
		return s, fmt.Errorf("sps: profile %d, constraints %#02x: %w", rbsp[1], rbsp[2], ErrParameters)
	}
	s.level = rbsp[3]
	r := bitReader{data: rbsp[4:]}
	id := r.ue()
	s.log2MaxFrameNum = int(r.ue()) + 4
	s.pocType = r.ue()
	if s.pocType == 0 {
		s.log2MaxPOC = r.ue() + 4
	}
	s.refFrames = r.ue()
	r.bit() // gaps_in_frame_num_value_allowed_flag: gaps are refused anyhow, see h264Clear
	s.mbWidth, s.mbHeight = r.ue()+1, r.ue()+1
	progressive := r.flag()
	r.bit() // direct_8x8_inference_flag: says nothing without B slices
	var left, top uint32
	if r.flag() {
		left, s.cropRight, top, s.cropBottom = r.ue(), r.ue(), r.ue(), r.ue()
	}
	r.bit() // vui_parameters_present_flag
	ok := !r.short && id == 0 && slices.Contains(levels, s.level) &&
		s.log2MaxFrameNum <= 16 && (s.pocType == 0 && s.log2MaxPOC <= 16 || s.pocType == 2) &&
		s.refFrames >= 1 && s.refFrames <= 16 && s.mbWidth <= 256 && s.mbHeight <= 256 && progressive &&
		left == 0 && top == 0 && s.cropRight < 8 && s.cropBottom < 8
	if !ok {
		return s, fmt.Errorf("sps: fields out of range: %w", ErrParameters)
	}
	return s, nil
}

// append writes the NAL unit with a start code. The VUI says that pictures come in order and how many are kept:
// without one, or with another, libwebrtc's receiver writes its own before the frame is decrypted
// (common_video/h264/sps_vui_rewriter.cc), and the frame no longer authenticates.
func (s *sps) append(dst []byte) []byte {
	var w bitWriter
	w.u(8, 0x60|nalSPS)
	w.u(8, 66)   // profile_idc: baseline
	w.u(8, 0xe0) // constraint_set0_flag to 2: constrained baseline
	w.u(8, uint32(s.level))
	w.ue(0) // seq_parameter_set_id
	w.ue(uint32(s.log2MaxFrameNum - 4))
	w.ue(s.pocType)
	if s.pocType == 0 {
		w.ue(s.log2MaxPOC - 4)
	}
	w.ue(s.refFrames)
	w.u(1, 0) // gaps_in_frame_num_value_allowed_flag
	w.ue(s.mbWidth - 1)
	w.ue(s.mbHeight - 1)
	w.u(1, 1) // frame_mbs_only_flag
	w.u(1, 1) // direct_8x8_inference_flag
	crop := s.cropRight != 0 || s.cropBottom != 0
	w.flag(crop)
	if crop {
		w.ue(0)
		w.ue(s.cropRight)
		w.ue(0)
		w.ue(s.cropBottom)
	}
	w.u(1, 1) // vui_parameters_present_flag; section E.1.1 from here
	w.u(8, 0) // no aspect ratio, overscan, video signal, chroma location, timing, NAL HRD, VCL HRD, picture structure
	w.u(1, 1) // bitstream_restriction_flag
	w.u(1, 1) // motion_vectors_over_pic_boundaries_flag
	w.ue(2)   // max_bytes_per_pic_denom
	w.ue(1)   // max_bits_per_mb_denom
	w.ue(16)  // log2_max_mv_length_horizontal
	w.ue(16)  // log2_max_mv_length_vertical
	w.ue(0)   // max_num_reorder_frames
	w.ue(s.refFrames)
	w.trail()
	return appendNAL(dst, w.data)
}

// pps holds the fields of a picture parameter set (section 7.3.2.2) that a constrained baseline stream is free to choose.
type pps struct {
	refIndices       uint32
	initQP           int32
	chromaQPOffset   int32
	deblocking       bool
	constrainedIntra bool
}

// parsePPS reads a NAL unit of type 8, header included. Anything that is not constrained baseline with ids 0 is
// [ErrParameters].
func parsePPS(nal []byte) (pps, error) {
	var p pps
	if len(nal) > maxPPS {
		return p, fmt.Errorf("pps of %d bytes: %w", len(nal), ErrParameters)
	}
	rbsp, err := appendUnescaped(make([]byte, 0, maxPPS), nal)
	if err != nil || len(rbsp) < 2 || rbsp[0]&0x9f != nalPPS || rbsp[0]&0x60 == 0 {
		return p, fmt.Errorf("pps: not a nal unit: %w", ErrParameters)
	}
	r := bitReader{data: rbsp[1:]}
	ppsID, spsID := r.ue(), r.ue()
	entropyFields := r.u(2)
	groups := r.ue()
	p.refIndices = r.ue() + 1
	r.ue() // num_ref_idx_l1_default_active_minus1: says nothing without B slices
	weighted := r.u(3)
	p.initQP = r.se()
	qs := r.se() // pic_init_qs_minus26: says nothing without SP and SI slices
	p.chromaQPOffset = r.se()
	p.deblocking, p.constrainedIntra = r.flag(), r.flag()
	redundant := r.flag()
	ok := r.ends() && ppsID == 0 && spsID == 0 && entropyFields == 0 && groups == 0 && p.refIndices <= 32 && weighted == 0 &&
		p.initQP >= -26 && p.initQP <= 25 && qs >= -26 && qs <= 25 &&
		p.chromaQPOffset >= -12 && p.chromaQPOffset <= 12 && !redundant
	if !ok {
		return p, fmt.Errorf("pps: fields out of range: %w", ErrParameters)
	}
	return p, nil
}

// append writes the NAL unit with a start code.
func (p *pps) append(dst []byte) []byte {
	var w bitWriter
	w.u(8, 0x60|nalPPS)
	w.ue(0)   // pic_parameter_set_id
	w.ue(0)   // seq_parameter_set_id
	w.u(2, 0) // CAVLC; no bottom field order
	w.ue(0)   // num_slice_groups_minus1
	w.ue(p.refIndices - 1)
	w.ue(0)   // num_ref_idx_l1_default_active_minus1
	w.u(3, 0) // no weighted prediction
	w.se(p.initQP)
	w.se(0) // pic_init_qs_minus26
	w.se(p.chromaQPOffset)
	w.flag(p.deblocking)
	w.flag(p.constrainedIntra)
	w.u(1, 0) // redundant_pic_cnt_present_flag
	w.trail()
	return appendNAL(dst, w.data)
}

// appendNAL appends a start code of four bytes and the escaped NAL unit.
func appendNAL(dst, nal []byte) []byte {
	dst, _ = appendEscaped(append(dst, 0, 0, 0, 1), nal, 0)
	return dst
}
