package e2ee

import (
	"encoding/binary"
	"fmt"
)

// livekit-client's IV (FrameCryptor.ts makeIV): u32 SSRC || u32 RTP timestamp || u32 (timestamp − count mod 65535). The
// count starts at random for each SSRC and rises by one each frame.
const (
	countModulus = 0xffff
	// windowFrames is how far a frame may lie behind the newest one of its SSRC.
	windowFrames = 1024
	// windowStreams is how many SSRCs are remembered for one track: simulcast has three at a time.
	windowStreams = 8
)

// ivWindow refuses frames that were held back: the set of IVs in [Ring] stops every second use, the window bounds how
// late a first use may be. The count wraps after 65,535 frames, and half of that lies ahead: a generation's 10 minutes
// at 50 frames a second are 30,000, so no gap within one generation is mistaken for age. The window therefore begins anew
// with each generation.
type ivWindow struct {
	streams [windowStreams]ivStream
	clock   uint64
}

// ivStream is one SSRC of one generation. touched is the window's clock at its last frame, 0 for a free place.
type ivStream struct {
	gen, ssrc, high uint32
	touched         uint64
}

// parseIV reads an IV of livekit-client's form.
func parseIV(iv *[ivSize]byte) (ssrc, count uint32, err error) {
	count = binary.BigEndian.Uint32(iv[4:]) - binary.BigEndian.Uint32(iv[8:])
	if count >= countModulus {
		return 0, 0, fmt.Errorf("iv is not livekit-client's: %w", ErrMalformed)
	}
	return binary.BigEndian.Uint32(iv[:]), count, nil
}

// check refuses a frame that lies further back than the window. It changes nothing.
func (w *ivWindow) check(gen, ssrc, count uint32) error {
	for i := range w.streams {
		s := &w.streams[i]
		if s.touched == 0 || s.gen != gen || s.ssrc != ssrc {
			continue
		}
		if behind := s.behind(count); behind >= windowFrames && behind <= countModulus/2 {
			return fmt.Errorf("frame lies %d back: %w", behind, ErrStale)
		}
	}
	return nil
}

func (s *ivStream) behind(count uint32) uint32 {
	return (s.high + countModulus - count) % countModulus
}

// advance records an authenticated frame. When all places are taken the stream that was silent longest makes room.
func (w *ivWindow) advance(gen, ssrc, count uint32) {
	w.clock++
	oldest := &w.streams[0]
	for i := range w.streams {
		s := &w.streams[i]
		if s.touched != 0 && s.gen == gen && s.ssrc == ssrc {
			s.touched = w.clock
			if s.behind(count) > countModulus/2 {
				s.high = count
			}
			return
		}
		if s.touched < oldest.touched {
			oldest = s
		}
	}
	*oldest = ivStream{gen: gen, ssrc: ssrc, high: count, touched: w.clock}
}
