package e2ee_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"testing"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/pion/rtp/codecs"
)

// The tests write H.264 by hand, as strings of bits: another writer than the one under test.

func ue(v uint32) string {
	n := bits.Len32(v + 1)
	return fmt.Sprintf("%0*b", 2*n-1, v+1)
}

func se(v int) string {
	if v > 0 {
		return ue(uint32(2*v - 1))
	}
	return ue(uint32(-2 * v))
}

// packed is bits in bytes, the last filled with zeros.
func packed(s string) []byte {
	s = strings.ReplaceAll(s, " ", "")
	s += strings.Repeat("0", (8-len(s)%8)%8)
	out := make([]byte, len(s)/8)
	for i, b := range s {
		out[i/8] |= byte(b-'0') << (7 - i%8)
	}
	return out
}

// escaped puts emulation prevention into a NAL unit, byte by byte.
func escaped(nal []byte) []byte {
	var out []byte
	run := 0
	for _, b := range nal {
		if run == 2 && b <= 3 {
			out, run = append(out, 3), 0
		}
		if b == 0 {
			run++
		} else {
			run = 0
		}
		out = append(out, b)
	}
	return out
}

type testSPS struct {
	head                   []byte
	id, frameNum, poc, lsb uint32
	refs, w, h             uint32
	progressive            string
	crop, vui              string
}

func spsOf(size e2ee.Size) testSPS {
	crop := "0"
	if size.Height%16 != 0 {
		crop = "1" + ue(0) + ue(0) + ue(0) + ue(uint32(16-size.Height%16)/2)
	}
	return testSPS{
		head: []byte{0x67, 66, 0xc0, 31}, poc: 2, refs: 1, progressive: "1",
		w: uint32(size.Width / 16), h: uint32(size.Height+15) / 16, crop: crop, vui: "0",
	}
}

func (s testSPS) nal() []byte {
	f := ue(s.id) + ue(s.frameNum) + ue(s.poc)
	if s.poc == 0 {
		f += ue(s.lsb)
	}
	f += ue(s.refs) + "0" + ue(s.w-1) + ue(s.h-1) + s.progressive + "1" + s.crop + s.vui + "1"
	return escaped(append(bytes.Clone(s.head), packed(f)...))
}

const (
	ppsFields = "1 1 0 0 1 1 1 0 00" // ids, entropy, field order, groups, references, weighting
	ppsTail   = "1 0 0 1"            // deblocking, intra, redundant pictures, stop bit
)

func ppsNAL() []byte { return append([]byte{0x68}, packed(ppsFields+se(-3)+se(0)+se(0)+ppsTail)...) }

func slice(idr bool, frameNum uint32, n int) []byte {
	head, fields := byte(0x41), ue(0)+ue(5)+ue(0)
	if idr {
		head, fields = 0x65, ue(0)+ue(7)+ue(0)
	}
	nal := append([]byte{head}, packed(fields+fmt.Sprintf("%04b", frameNum%16)+"1111")...)
	nal = append(nal, noise(n-len(nal), frameNum)...)
	nal[n-1] |= 1 // a NAL unit does not end in a zero
	return escaped(nal)
}

func accessUnit(nals ...[]byte) []byte {
	var out []byte
	for _, n := range nals {
		out = append(append(out, 0, 0, 0, 1), n...)
	}
	return out
}

// pair is a sender and a receiver of its frames.
func pair(t testing.TB, s *e2ee.Sender) (*e2ee.Sender, *e2ee.Receiver) {
	t.Helper()
	return keyed(t, s, 1), receiver(t, secretA, s.Codec(), 1, e2ee.RandomIV)
}

func passes(t *testing.T, s *e2ee.Sender, r *e2ee.Receiver, frame []byte) []byte {
	t.Helper()
	sealed, err := s.Encrypt(nil, frame)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := r.Decrypt(nil, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// Whatever an encoder puts around its slices, what is sent clear is ours: parameter sets, and nothing else.
func TestH264ClearPartIsWrittenAnew(t *testing.T) {
	sps, pps := spsOf(ladder[0]), ppsNAL()
	sei := append([]byte{6, 5, 100}, noise(100, 1)...)
	first, second := slice(true, 0, 500), slice(true, 0, 400)
	second[1] = 0b01000100 // another first macroblock: it is sealed, whatever it says
	plain := accessUnit(sps.nal(), pps, first)

	s, r := pair(t, e2ee.NewH264Sender(ladder...))
	want := passes(t, s, r, plain)
	if !bytes.HasSuffix(want, accessUnit(first)) {
		t.Fatal("the slice is not the encoder's")
	}
	vui := sps
	vui.vui = "1" + "1 00000001 0 1 101 1 0" + strings.Repeat("01", 300) // an aspect ratio, a video format, a message
	three := append(append([]byte{0, 0, 1}, sps.nal()...), append([]byte{0, 0, 1}, pps...)...)
	three = append(append(three, 0, 0, 1), first...)
	odd := bytes.Clone(first)
	odd[0] = 0x25
	for name, frame := range map[string][]byte{
		"delimiter":               accessUnit([]byte{9, 0x10}, sps.nal(), pps, first),
		"sei":                     accessUnit(sps.nal(), pps, sei, first),
		"sei in front":            accessUnit(sei, sei, sps.nal(), sei, pps, first),
		"sei behind":              accessUnit(sps.nal(), pps, first, sei),
		"filler behind":           accessUnit(sps.nal(), pps, first, append([]byte{12}, bytes.Repeat([]byte{0xff}, 80)...)),
		"unspecified type":        accessUnit(append([]byte{24}, sei...), sps.nal(), append([]byte{31}, sei...), pps, first),
		"end of sequence":         accessUnit(sps.nal(), pps, first, []byte{10}, []byte{11}),
		"trailing zeros":          append(accessUnit(sps.nal(), append(pps, 0, 0), first), 0, 0, 0),
		"start codes of three":    three,
		"empty nal units":         accessUnit(nil, sps.nal(), nil, pps, first, nil),
		"another vui":             accessUnit(vui.nal(), pps, first),
		"nal_ref_idc 1":           accessUnit(sps.nal(), pps, odd),
		"nal_ref_idc of sets":     accessUnit(append([]byte{0x27}, sps.nal()[1:]...), append([]byte{0x48}, pps[1:]...), first),
		"constraint_set0_flag":    accessUnit(append([]byte{0x67, 66, 0x40}, sps.nal()[3:]...), pps, first),
		"constraint_set2_flag":    accessUnit(append([]byte{0x67, 66, 0xe0}, sps.nal()[3:]...), pps, first),
		"constraint flags 3 to 5": accessUnit(append([]byte{0x67, 66, 0x7c}, sps.nal()[3:]...), pps, first),
	} {
		t.Run(name, func(t *testing.T) {
			s, r := pair(t, e2ee.NewH264Sender(ladder...))
			if len(vui.nal()) > 256 {
				t.Fatal("the test's own sps is too long")
			}
			if got := passes(t, s, r, frame); !bytes.Equal(got, want) {
				t.Errorf("opened to\n%x, want\n%x", got[:60], want[:60])
			}
		})
	}

	s, r = pair(t, e2ee.NewH264Sender(ladder...))
	want = append(bytes.Clone(want), accessUnit(second)...)
	if got := passes(t, s, r, accessUnit(sps.nal(), pps, first, second)); !bytes.Equal(got, want) {
		t.Error("two slices")
	}
	if got := passes(t, s, r, accessUnit(sps.nal(), pps, sei, first, sei, sei, second, sei)); !bytes.Equal(got, want) {
		t.Error("two slices with a message between them")
	}
	if got := passes(t, s, r, accessUnit(sps.nal(), pps, first, sei, second, second)); !bytes.Equal(got, append(bytes.Clone(want), accessUnit(second)...)) {
		t.Error("three slices with a message between two")
	}
}

func TestH264ParameterSetsRefused(t *testing.T) {
	good := spsOf(ladder[0])
	first := slice(true, 0, 500)
	sps := func(change func(*testSPS)) []byte {
		s := good
		s.head = bytes.Clone(s.head)
		change(&s)
		return accessUnit(s.nal(), ppsNAL(), first)
	}
	pps := func(fields string) []byte {
		return accessUnit(good.nal(), append([]byte{0x68}, packed(fields)...), first)
	}
	for name, frame := range map[string][]byte{
		"main profile":              sps(func(s *testSPS) { s.head[1] = 77 }),
		"high profile":              sps(func(s *testSPS) { s.head[1] = 100 }),
		"baseline, not constrained": sps(func(s *testSPS) { s.head[2] = 0x80 }),
		"reserved bits":             sps(func(s *testSPS) { s.head[2] |= 2 }),
		"level":                     sps(func(s *testSPS) { s.head[3] = 33 }),
		"forbidden bit":             sps(func(s *testSPS) { s.head[0] = 0xe7 }),
		"nal_ref_idc 0":             sps(func(s *testSPS) { s.head[0] = 0x07 }),
		"sps id":                    sps(func(s *testSPS) { s.id = 1 }),
		"log2_max_frame_num":        sps(func(s *testSPS) { s.frameNum = 13 }),
		"poc type 1":                sps(func(s *testSPS) { s.poc = 1 }),
		"poc lsb":                   sps(func(s *testSPS) { s.poc, s.lsb = 0, 13 }),
		"no reference frame":        sps(func(s *testSPS) { s.refs = 0 }),
		"17 reference frames":       sps(func(s *testSPS) { s.refs = 17 }),
		"interlaced":                sps(func(s *testSPS) { s.progressive = "00" }),
		"257 macroblocks":           sps(func(s *testSPS) { s.w = 257 }),
		"cropped left":              sps(func(s *testSPS) { s.crop = "1" + ue(1) + ue(0) + ue(0) + ue(4) }),
		"cropped top":               sps(func(s *testSPS) { s.crop = "1" + ue(0) + ue(0) + ue(4) + ue(0) }),
		"cropped a macroblock":      sps(func(s *testSPS) { s.crop = "1" + ue(0) + ue(8) + ue(0) + ue(4) }),
		"sps cut":                   accessUnit(good.nal()[:6], ppsNAL(), first),
		"sps of its header":         accessUnit([]byte{0x67}, ppsNAL(), first),
		"endless number":            accessUnit([]byte{0x67, 66, 0xc0, 31, 0x80, 0, 0x40, 0, 0x40, 0, 0x40}, ppsNAL(), first),
		"sps of 300 bytes":          accessUnit(append(good.nal(), noise(300, 1)...), ppsNAL(), first),
		"sps escaped wrongly":       accessUnit(append(good.nal(), 0, 0, 3, 9), ppsNAL(), first),
		"two sps":                   accessUnit(good.nal(), good.nal(), ppsNAL(), first),
		"two pps":                   accessUnit(good.nal(), ppsNAL(), ppsNAL(), first),
		"sps behind the slice":      accessUnit(good.nal(), ppsNAL(), first, good.nal()),
		"no pps":                    accessUnit(good.nal(), first),
		"no sps":                    accessUnit(ppsNAL(), first),
		"sets with a p slice":       accessUnit(good.nal(), ppsNAL(), slice(false, 1, 500)),
		"pps id":                    pps("010" + ppsFields[1:] + se(0) + se(0) + se(0) + ppsTail),
		"pps's sps id":              pps("1 010" + ppsFields[3:] + se(0) + se(0) + se(0) + ppsTail),
		"cabac":                     pps("1 1 1 0 1 1 1 0 00" + se(0) + se(0) + se(0) + ppsTail),
		"field order":               pps("1 1 0 1 1 1 1 0 00" + se(0) + se(0) + se(0) + ppsTail),
		"slice groups":              pps("1 1 0 0 010 1 1 0 00" + se(0) + se(0) + se(0) + ppsTail),
		"33 references":             pps("1 1 0 0 1" + ue(32) + "1 0 00" + se(0) + se(0) + se(0) + ppsTail),
		"weighted":                  pps("1 1 0 0 1 1 1 1 00" + se(0) + se(0) + se(0) + ppsTail),
		"weighted b":                pps("1 1 0 0 1 1 1 0 01" + se(0) + se(0) + se(0) + ppsTail),
		"qp":                        pps(ppsFields + se(26) + se(0) + se(0) + ppsTail),
		"qs":                        pps(ppsFields + se(0) + se(-27) + se(0) + ppsTail),
		"chroma qp":                 pps(ppsFields + se(0) + se(0) + se(13) + ppsTail),
		"redundant pictures":        pps(ppsFields + se(0) + se(0) + se(0) + "1 0 1 1"),
		"high profile's fields":     pps(ppsFields + se(0) + se(0) + se(0) + "1 0 0 1 0 1 1"),
		"pps cut":                   accessUnit(good.nal(), ppsNAL()[:2], first),
		"pps of 65 bytes":           accessUnit(good.nal(), append(ppsNAL(), noise(65, 1)...), first),
	} {
		t.Run(name, func(t *testing.T) {
			refuses(t, keyed(t, e2ee.NewH264Sender(ladder...), 1), frame, e2ee.ErrParameters)
		})
	}
	for name, size := range map[string]e2ee.Size{"352x288": {Width: 352, Height: 288}, "swapped": {Width: 720, Height: 1280}} {
		t.Run(name, func(t *testing.T) {
			frame := accessUnit(spsOf(size).nal(), ppsNAL(), first)
			refuses(t, keyed(t, e2ee.NewH264Sender(ladder...), 1), frame, e2ee.ErrPicture)
		})
	}
}

func TestH264SliceHeaders(t *testing.T) {
	key := accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 500))
	p := func(head byte, fields string) []byte {
		return accessUnit(append(append([]byte{head}, packed(fields)...), noise(300, 7)...))
	}
	header := func(mb, kind, pps uint32, number int) string {
		return ue(mb) + ue(kind) + ue(pps) + fmt.Sprintf("%04b", number) + "1111"
	}
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"second macroblock", p(0x41, header(1, 5, 0, 1)), e2ee.ErrClearPart},
		{"i slice", p(0x41, header(0, 7, 0, 1)), e2ee.ErrClearPart},
		{"b slice", p(0x41, header(0, 6, 0, 1)), e2ee.ErrClearPart},
		{"sp slice", p(0x41, header(0, 8, 0, 1)), e2ee.ErrClearPart},
		{"slice type 10", p(0x41, header(0, 10, 0, 1)), e2ee.ErrClearPart},
		{"another pps", p(0x41, header(0, 5, 1, 1)), e2ee.ErrClearPart},
		{"frame number repeated", p(0x41, header(0, 5, 0, 0)), e2ee.ErrNeedKeyFrame},
		{"frame number skipped", p(0x41, header(0, 5, 0, 2)), e2ee.ErrNeedKeyFrame},
		{"not a reference", p(0x01, header(0, 5, 0, 1)), e2ee.ErrClearPart},
		{"forbidden bit", p(0xc1, header(0, 5, 0, 1)), e2ee.ErrClearPart},
		{"p slice in idr", p(0x65, header(0, 5, 0, 0)), e2ee.ErrClearPart},
		{"idr numbered", p(0x65, header(0, 7, 0, 1)), e2ee.ErrNeedKeyFrame},
		{"idr of another slice type", p(0x65, header(0, 2, 0, 0)), e2ee.ErrClearPart},
		{"mixed types", accessUnit(slice(true, 0, 100), slice(false, 1, 100)), e2ee.ErrClearPart},
		{"slice of two bytes", accessUnit([]byte{0x41, 0x9a}), e2ee.ErrClearPart},
		{"slice header cut", accessUnit([]byte{0x41, 0x80, 0x00}), e2ee.ErrClearPart},
		{"no slice", accessUnit([]byte{9, 0x10}, []byte{6, 1, 2, 3}), e2ee.ErrClearPart},
		{"sets alone", accessUnit(spsOf(ladder[0]).nal(), ppsNAL()), e2ee.ErrClearPart},
		{"partition a", p(0x42, header(0, 5, 0, 1)), e2ee.ErrClearPart},
		{"no start code", slice(false, 1, 100), e2ee.ErrMalformed},
		{"bytes in front", append([]byte{7}, accessUnit(slice(false, 1, 100))...), e2ee.ErrMalformed},
		{"empty", nil, e2ee.ErrMalformed},
		{"start code alone", []byte{0, 0, 0, 1}, e2ee.ErrClearPart},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := keyed(t, e2ee.NewH264Sender(ladder...), 1)
			refuses(t, s, p(0x41, header(0, 5, 0, 1)), e2ee.ErrNeedKeyFrame)
			if _, err := s.Encrypt(nil, key); err != nil {
				t.Fatal(err)
			}
			refuses(t, s, c.frame, c.want)
			// What follows may refer to what was not sent: only an IDR picture goes on.
			refuses(t, s, p(0x41, header(0, 5, 0, 1)), e2ee.ErrNeedKeyFrame)
			if _, err := s.Encrypt(nil, key); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Encrypt(nil, p(0x41, header(0, 5, 0, 1))); err != nil {
				t.Fatal(err)
			}
			refuses(t, s, p(0x41, header(0, 0, 0, 2)), e2ee.ErrClearPart) // the other number of a P slice
		})
	}
}

// frame_num wraps, and every clear byte of a long stream follows from its place in it.
func TestH264ClearBytesFollowFromPlace(t *testing.T) {
	s, r := pair(t, e2ee.NewH264Sender(ladder...))
	passes(t, s, r, accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 500)))
	seen := map[string]int{}
	for i := uint32(1); i < 100; i++ {
		sealed, err := s.Encrypt(nil, accessUnit(slice(false, i, 60)))
		if err != nil {
			t.Fatalf("picture %d: %v", i, err)
		}
		seen[string(sealed[:6])]++
		if _, err := r.Decrypt(nil, sealed); err != nil {
			t.Fatalf("picture %d: %v", i, err)
		}
	}
	if len(seen) != 2 { // the highest bit of a frame_num of four bits
		t.Errorf("%d different clear parts", len(seen))
	}
}

func TestH264ParameterSetsArePinned(t *testing.T) {
	pps := ppsNAL()
	small, large := spsOf(ladder[0]), spsOf(ladder[1])
	unit := func(s testSPS) []byte { return accessUnit(s.nal(), pps, slice(true, 0, 300)) }
	s, r := pair(t, e2ee.NewH264Sender(ladder...))
	first := passes(t, s, r, unit(small))
	passes(t, s, r, accessUnit(small.nal(), pps, slice(false, 1, 100))) // repeated, unchanged: left out
	refuses(t, s, unit(large), e2ee.ErrParameters)
	again := passes(t, s, r, accessUnit(slice(true, 0, 300))) // without sets: ours go with it
	if !bytes.Equal(first, again) {
		t.Error("pinned sets are not sent with every key frame")
	}

	const second = 1_000_000_000
	now := int64(5 * second)
	if err := s.Repin(now); err != nil {
		t.Fatal(err)
	}
	refuses(t, s, accessUnit(slice(false, 1, 100)), e2ee.ErrNeedKeyFrame)
	refuses(t, s, accessUnit(spsOf(e2ee.Size{Width: 320, Height: 240}).nal(), pps, slice(true, 0, 300)), e2ee.ErrPicture)
	changed := passes(t, s, r, unit(large))
	if bytes.Equal(changed[:30], first[:30]) {
		t.Error("the new size is not in the clear part")
	}
	refuses(t, s, unit(small), e2ee.ErrParameters)
	for _, at := range []int64{now, now + second, now + e2ee.MinRepin - 1} {
		if err := s.Repin(at); !errors.Is(err, e2ee.ErrTooSoon) {
			t.Errorf("repin after %d ns: %v", at-now, err)
		}
		refuses(t, s, unit(small), e2ee.ErrParameters)
	}
	passes(t, s, r, unit(large))
	if err := s.Repin(now + e2ee.MinRepin); err != nil {
		t.Fatal(err)
	}
	// Another encoder with the same sets may number its slice types the other way.
	other := append([]byte{0x65}, packed(ue(0)+ue(2)+ue(0)+"0000 1111")...)
	passes(t, s, r, accessUnit(large.nal(), pps, append(other, noise(100, 3)...)))
	refuses(t, s, unit(small), e2ee.ErrParameters) // the one change is used up
	if err := e2ee.NewVP8Sender().Repin(0); err != nil {
		t.Error(err)
	}
}

// An access unit survives RTP: what pion's depacketizer rebuilds authenticates, escapes and all. The IV is random, so
// many frames are sent to meet escapes in all places.
func TestH264ThroughRTP(t *testing.T) {
	s, r := pair(t, e2ee.NewH264Sender(ladder...))
	grown := 0
	plain := [8][]byte{}
	for i := range plain {
		plain[i] = accessUnit(slice(false, uint32(i), 20_000+i))
	}
	for i := 0; i < 100 || grown < 3; i++ {
		frame := plain[i%8]
		if i%8 == 0 {
			frame = accessUnit([]byte{9, 0x10}, spsOf(ladder[1]).nal(), ppsNAL(), slice(true, 0, 20_000))
		}
		sealed, err := s.Encrypt(nil, frame)
		if err != nil {
			t.Fatal(err)
		}
		if d := len(sealed) - len(frame) - e2ee.Overhead; i%8 != 0 && d > 0 {
			grown++
		}
		var payloader codecs.H264Payloader
		var packet codecs.H264Packet
		var rebuilt []byte
		for _, payload := range payloader.Payload(1200, sealed) {
			part, err := packet.Unmarshal(bytes.Clone(payload))
			if err != nil {
				t.Fatal(err)
			}
			rebuilt = append(rebuilt, part...)
		}
		if !bytes.Equal(rebuilt, sealed) {
			t.Fatalf("picture %d: RTP changed the frame", i)
		}
		opened, err := r.Decrypt(nil, rebuilt)
		if err != nil {
			t.Fatalf("picture %d: %v", i, err)
		}
		if i%8 != 0 && !bytes.Equal(opened, frame) {
			t.Fatalf("picture %d: opened to another", i)
		}
	}
}

// The encoder's own stream (x264) passes whole.
func TestH264OfAnEncoder(t *testing.T) {
	s, r := pair(t, e2ee.NewH264Sender(e2ee.Size{Width: 64, Height: 48}))
	n := 0
	for _, f := range load[frames](t, "frames.json").Frames {
		if f.Codec != "h264" {
			continue
		}
		n++
		if opened := passes(t, s, r, f.Frame); !bytes.HasSuffix(opened, slicesOf(f.Frame)) {
			t.Errorf("%s: slices changed", f.Name)
		} else if bytes.Contains(opened, []byte("x264")) {
			t.Errorf("%s: the encoder's message was sent", f.Name)
		}
	}
	if n != 6 {
		t.Errorf("%d access units", n)
	}
}
