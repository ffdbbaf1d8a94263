package session

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
)

// vp8Packets cuts each frame into RTP packets as a sender would.
func vp8Packets(frames [][]byte, first uint16) []*rtp.Packet {
	var out []*rtp.Packet
	seq := first
	for i, f := range frames {
		parts := (&codecs.VP8Payloader{}).Payload(50, f)
		for j, part := range parts {
			out = append(out, &rtp.Packet{
				Header:  rtp.Header{SequenceNumber: seq, Timestamp: uint32(i) * 3000, Marker: j == len(parts)-1},
				Payload: part,
			})
			seq++
		}
	}
	return out
}

func testFrames(n int) [][]byte {
	var out [][]byte
	for i := range n {
		out = append(out, bytes.Repeat([]byte{byte(i + 1)}, 120+i))
	}
	return out
}

func TestAssembler(t *testing.T) {
	frames := testFrames(4)
	for _, first := range []uint16{7, 65533} { // the second wraps inside the run
		all := vp8Packets(frames, first)
		per := len(all) / len(frames)
		cases := []struct {
			name  string
			order func() []*rtp.Packet
			want  []int
			lost  bool
		}{
			{"in order", func() []*rtp.Packet { return all }, []int{0, 1, 2, 3}, false},
			{"two swapped", func() []*rtp.Packet {
				o := append([]*rtp.Packet(nil), all...)
				o[per], o[per+1] = o[per+1], o[per]
				return o
			}, []int{0, 1, 2, 3}, false},
			{"each twice", func() []*rtp.Packet {
				var o []*rtp.Packet
				for _, p := range all {
					o = append(o, p, p)
				}
				return o
			}, []int{0, 1, 2, 3}, false},
			{"first packet of frame 1 lost", func() []*rtp.Packet {
				return append(append([]*rtp.Packet(nil), all[:per]...), all[per+1:]...)
			}, []int{0, 2, 3}, true},
			{"last packet of frame 1 lost", func() []*rtp.Packet {
				return append(append([]*rtp.Packet(nil), all[:2*per-1]...), all[2*per:]...)
			}, []int{0, 2, 3}, true},
		}
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s from %d", c.name, first), func(t *testing.T) {
				a := newVideoAssembler(mimeVP8)
				var got []int
				lost, now := false, int64(1000)
				for _, p := range c.order() {
					now += 90
					copied := *p
					if a.push(now, &copied, func(f []byte, ts uint32) {
						i := int(ts / 3000)
						if !bytes.Equal(f, frames[i]) {
							t.Errorf("frame %d differs from what was sent", i)
						}
						got = append(got, i)
					}) {
						lost = true
					}
				}
				if fmt.Sprint(got) != fmt.Sprint(c.want) || lost != c.lost {
					t.Errorf("frames %v, lost %v; want %v, %v", got, lost, c.want, c.lost)
				}
			})
		}
	}
}

func TestAssemblerHoldsNoMoreThanItsBound(t *testing.T) {
	a := newVideoAssembler(mimeVP8)
	for i := range 5 * maxHeld {
		seq := uint16(2*i + 1) // every other packet is missing
		a.push(0, &rtp.Packet{Header: rtp.Header{SequenceNumber: seq}, Payload: []byte{0x10, 1}}, func([]byte, uint32) {})
		if len(a.held) > maxHeld+1 {
			t.Fatalf("%d packets held", len(a.held))
		}
	}
}
