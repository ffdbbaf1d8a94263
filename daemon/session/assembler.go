package session

import (
	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
)

// maxHeld bounds how many packets wait for a missing one; at 1,200 bytes each that is one key frame of 600 kB.
const maxHeld = 512

// maxLate is how many packets in a row may be from the past before the stream counts as a new one.
const maxLate = 200

// assembler puts the packets of one track into order and joins them into frames. A frame is handed on with
// its last packet, not with the first of the next one, which would cost a frame period. It is pure: time
// comes in as milliseconds, so that a hole is given up after a wait that tests can play through.
//
// The SFU may send what it likes: what is held, and the frame that grows, are bounded.
//
// After a hole the picture cannot be decoded until the next key frame; lost tells the caller to ask for one.
type assembler struct {
	depacketize func() rtp.Depacketizer
	wait        int64 // how long a hole is held open, in ms: the time a retransmission needs

	held    map[uint16]*rtp.Packet
	next    uint16 // sequence number that continues what was handed on
	started bool
	hole    bool  // next is missing while later ones are held
	holeAt  int64 // since when
	late    int   // packets from the past, in a row

	frame     []byte
	timestamp uint32 // of the running frame
	inFrame   bool
	poisoned  bool // a part of the running frame was lost
}

func newVideoAssembler(mime string) *assembler {
	a := &assembler{wait: 200, held: make(map[uint16]*rtp.Packet)}
	switch mime {
	case mimeH264:
		a.depacketize = func() rtp.Depacketizer { return &codecs.H264Packet{} }
	default:
		a.depacketize = func() rtp.Depacketizer { return &codecs.VP8Packet{} }
	}
	return a
}

// push takes one packet and calls emit for each frame that is now whole. emit's slice is valid during the call.
// It reports whether packets were given up.
func (a *assembler) push(now int64, p *rtp.Packet, emit func(frame []byte, timestamp uint32)) (lost bool) {
	if !a.started {
		a.started, a.next = true, p.SequenceNumber
	}
	if ahead := p.SequenceNumber - a.next; ahead >= 1<<15 {
		if a.late++; a.late <= maxLate {
			return false // late or twice
		}
		clear(a.held)
		a.next, a.hole, a.inFrame = p.SequenceNumber, false, false
		lost = true
	}
	a.late = 0
	a.held[p.SequenceNumber] = p
	a.drain(emit)
	if len(a.held) == 0 {
		a.hole = false
		return lost
	}
	if !a.hole {
		a.hole, a.holeAt = true, now
	}
	if now-a.holeAt < a.wait && len(a.held) <= maxHeld {
		return lost
	}
	a.skip()
	a.drain(emit)
	a.hole, a.holeAt = len(a.held) > 0, now
	return true
}

// skip gives the missing packets up and goes on with the oldest that is there.
func (a *assembler) skip() {
	oldest, best := a.next, uint16(1<<15)
	for seq := range a.held {
		if d := seq - a.next; d < best {
			oldest, best = seq, d
		}
	}
	a.next = oldest
	a.poisoned = true
}

func (a *assembler) drain(emit func([]byte, uint32)) {
	for {
		p, ok := a.held[a.next]
		if !ok {
			return
		}
		delete(a.held, a.next)
		a.next++
		a.add(p, emit)
	}
}

// add appends one packet, in order, to the running frame.
func (a *assembler) add(p *rtp.Packet, emit func([]byte, uint32)) {
	if len(p.Payload) == 0 {
		return // padding, sent by the SFU to probe
	}
	d := a.depacketize()
	body, err := d.Unmarshal(p.Payload)
	if err != nil {
		a.poisoned = true
		return
	}
	if begins(d, p.Payload) && (!a.inFrame || p.Timestamp != a.timestamp) {
		a.frame, a.inFrame, a.poisoned, a.timestamp = a.frame[:0], true, false, p.Timestamp
	}
	if !a.inFrame {
		return
	}
	if len(a.frame)+len(body) > e2ee.MaxFrameSize {
		a.frame, a.poisoned = a.frame[:0], true
	}
	if !a.poisoned {
		a.frame = append(a.frame, body...)
	}
	if !p.Marker {
		return
	}
	if !a.poisoned {
		emit(a.frame, p.Timestamp)
	}
	a.inFrame, a.poisoned = false, false
}

// begins says whether a packet can be the first of a frame.
func begins(d rtp.Depacketizer, payload []byte) bool {
	if vp8, ok := d.(*codecs.VP8Packet); ok {
		return vp8.S == 1 && vp8.PID == 0 // RFC 7741 section 4.2
	}
	return d.IsPartitionHead(payload)
}
