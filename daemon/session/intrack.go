package session

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/pion/interceptor"
	"github.com/pion/opus"
	"github.com/pion/rtp"
)

// keyFrameRepeat is how often a receiver asks until a key frame has come: Chromium and the SFU may lose one
// request, and a browser's own next one comes only after 3 s.
const keyFrameRepeat = 400 * time.Millisecond

// packetReader is what an inTrack reads; *webrtc.TrackRemote in a call.
type packetReader interface {
	ReadRTP() (*rtp.Packet, interceptor.Attributes, error)
}

// inTrack is one accepted track of a member, from its first packet to its end. Its goroutine owns it.
type inTrack struct {
	identity        string
	mime            string
	packets         packetReader
	requestKeyFrame func()
}

// Received counts what came from one member, for the report that is sent back and for status.
type Received struct {
	VideoFrames  atomic.Uint64
	AudioPackets atomic.Uint64
	Width        atomic.Uint32
	Height       atomic.Uint32
	Bytes        atomic.Uint64
	Rejected     atomic.Uint64
	level        atomic.Uint64 // math.Float64bits of dBFS

	lastBytes uint64 // owned by the report
	lastAt    time.Time
}

// Level is the loudness of the last second in dBFS; -127 is silence.
func (r *Received) Level() float64 { return math.Float64frombits(r.level.Load()) }

// Sink takes decrypted frames. Calls for one track come from one goroutine; the frame is valid during the call.
type Sink interface {
	Frame(identity, mime string, frame []byte, timestamp uint32)
}

// receive reads a track until it ends, decrypts its frames and hands them to the sink.
func (s *Session) receive(ctx context.Context, in *inTrack, dec *e2ee.Receiver, got *Received) {
	if in.mime == mimeOpus {
		s.receiveAudio(ctx, in, dec, got)
		return
	}
	s.receiveVideo(ctx, in, dec, got)
}

func (s *Session) receiveVideo(ctx context.Context, in *inTrack, dec *e2ee.Receiver, got *Received) {
	asm := newVideoAssembler(in.mime)
	var clear []byte
	waiting, askedAt := true, time.Time{}
	ask := func(now time.Time) {
		if waiting && now.Sub(askedAt) >= keyFrameRepeat {
			askedAt = now
			in.requestKeyFrame()
		}
	}
	began := time.Now()
	for ctx.Err() == nil {
		p, _, err := in.packets.ReadRTP()
		if err != nil {
			return
		}
		now := time.Now()
		lost := asm.push(now.Sub(began).Milliseconds(), p, func(frame []byte, ts uint32) {
			var err error
			clear, err = dec.Decrypt(clear[:0], frame)
			if err != nil {
				s.reject(got, err)
				waiting = true
				return
			}
			key := isKeyFrame(in.mime, clear)
			if waiting && !key {
				return // cannot be decoded: its reference is missing
			}
			if key {
				waiting = false
				if w, h, ok := frameSize(in.mime, clear); ok {
					got.Width.Store(w)
					got.Height.Store(h)
				}
			}
			got.VideoFrames.Add(1)
			got.Bytes.Add(uint64(len(frame)))
			s.sink.Frame(in.identity, in.mime, clear, ts)
		})
		if lost {
			waiting = true
		}
		ask(now)
	}
}

func (s *Session) receiveAudio(ctx context.Context, in *inTrack, dec *e2ee.Receiver, got *Received) {
	var clear []byte
	meter := newMeter()
	for ctx.Err() == nil {
		p, _, err := in.packets.ReadRTP()
		if err != nil {
			return
		}
		if len(p.Payload) == 0 {
			continue
		}
		clear, err = dec.Decrypt(clear[:0], p.Payload)
		if err != nil {
			s.reject(got, err)
			continue
		}
		got.AudioPackets.Add(1)
		got.Bytes.Add(uint64(len(p.Payload)))
		if db, ok := meter.add(clear); ok {
			got.level.Store(math.Float64bits(db))
		}
		s.sink.Frame(in.identity, in.mime, clear, p.Timestamp)
	}
}

func (s *Session) reject(got *Received, err error) {
	got.Rejected.Add(1)
	s.metrics.rejected(e2ee.Reason(err))
}

// meter measures the loudness of an Opus stream, a second at a time.
type meter struct {
	decoder opus.Decoder
	broken  bool
	pcm     []float32
	sum     float64
	n       int
}

func newMeter() *meter {
	d, err := opus.NewDecoderWithOutput(48000, 1)
	return &meter{decoder: d, broken: err != nil, pcm: make([]float32, 5760)}
}

// add decodes one packet; ok says that a second is full and db its RMS in dBFS.
func (m *meter) add(packet []byte) (db float64, ok bool) {
	if m.broken {
		return 0, false
	}
	defer func() {
		if recover() != nil { // a member's packet must not end the daemon; without a meter the call goes on
			m.broken, ok = true, false
		}
	}()
	n, err := m.decoder.DecodeToFloat32(packet, m.pcm)
	if err != nil {
		return 0, false
	}
	for _, v := range m.pcm[:n] {
		m.sum += float64(v) * float64(v)
	}
	m.n += n
	if m.n < 48000 {
		return 0, false
	}
	db = -127
	if m.sum > 0 {
		db = max(db, 10*math.Log10(m.sum/float64(m.n)))
	}
	m.sum, m.n = 0, 0
	return db, true
}
