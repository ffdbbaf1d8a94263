package session

import (
	"context"
	"math"
	"sync"
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
	// SetReadDeadline makes a ReadRTP that waits past it return an error.
	SetReadDeadline(time.Time) error
}

// inTrack is one accepted track of a member, from its first packet to its end. Its goroutine owns it.
type inTrack struct {
	identity        string
	mime            string
	packets         packetReader
	requestKeyFrame func()
	ended           atomic.Bool
}

// stop ends the track's loop; it may be called from any goroutine.
func (in *inTrack) stop() {
	in.ended.Store(true)
	_ = in.packets.SetReadDeadline(time.Unix(1, 0)) // a track that has ended needs none
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

	lastBytes uint64 // owned by the report, as are all below
	lastAt    time.Time
	lastAudio uint64
}

// silent is the level of no sound at all, in dBFS.
const silent = -127

// Level is the loudness of the last second in dBFS; -127 is silence.
func (r *Received) Level() float64 { return math.Float64frombits(r.level.Load()) }

func (r *Received) setLevel(dbfs float64) { r.level.Store(math.Float64bits(dbfs)) }

// Sink takes decrypted frames. Calls for one track come from one goroutine; the frame is valid during the call.
type Sink interface {
	Frame(identity, mime string, frame []byte, timestamp uint32)
}

// onTrack runs on the SDK's goroutine.
func (s *Session) onTrack(in *inTrack) {
	m := s.member(in.identity)
	if m == nil {
		s.metrics.refused("not_a_member")
		return
	}
	codec, err := e2ee.ParseCodec(in.mime)
	if err == nil {
		var dec *e2ee.Receiver
		if dec, err = m.ring.NewReceiver(e2ee.Track{Codec: codec, Encrypted: true}); err == nil {
			s.claim(m, codec.Kind(), in)
			go s.receive(s.ctx, in, dec, &m.received)
			return
		}
	}
	s.metrics.refused(e2ee.Reason(err))
}

// claim makes in the member's one track of its kind. A member that has joined again sends on a new one; a further
// one that the SFU makes up ends the one before, and frames open once, so nothing is gained by it.
func (s *Session) claim(m *member, kind e2ee.Kind, in *inTrack) {
	s.claims.Lock()
	former := m.tracks[kind]
	m.tracks[kind] = in
	s.claims.Unlock()
	if former != nil {
		former.stop()
	}
}

// receive reads a track until it or ctx ends, decrypts its frames and hands them to the sink.
func (s *Session) receive(ctx context.Context, in *inTrack, dec *e2ee.Receiver, got *Received) {
	defer context.AfterFunc(ctx, in.stop)()
	if in.mime == mimeOpus {
		s.receiveAudio(in, dec, got)
		return
	}
	s.receiveVideo(ctx, in, dec, got)
}

// keyFrameAsker asks a sender for a key frame until one has come.
type keyFrameAsker struct {
	ask func()

	mu      sync.Mutex // guards below
	waiting bool
	askedAt time.Time
}

// want says whether a key frame is needed, and asks if it is time to.
func (k *keyFrameAsker) want(needed bool) {
	k.mu.Lock()
	k.waiting = needed
	k.mu.Unlock()
	k.again()
}

func (k *keyFrameAsker) again() {
	k.mu.Lock()
	now := time.Now()
	due := k.waiting && now.Sub(k.askedAt) >= keyFrameRepeat
	if due {
		k.askedAt = now
	}
	k.mu.Unlock()
	if due {
		k.ask()
	}
}

// run repeats until ctx ends. It has a goroutine of its own: a sender that waits for the request sends nothing.
func (k *keyFrameAsker) run(ctx context.Context) {
	tick := time.NewTicker(keyFrameRepeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.again()
		}
	}
}

func (s *Session) receiveVideo(ctx context.Context, in *inTrack, dec *e2ee.Receiver, got *Received) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keyFrame := &keyFrameAsker{ask: in.requestKeyFrame}
	keyFrame.want(true)
	go keyFrame.run(ctx)
	asm := newVideoAssembler(in.mime)
	var clear []byte
	waiting := true
	began := time.Now()
	for !in.ended.Load() {
		p, _, err := in.packets.ReadRTP()
		if err != nil {
			return
		}
		now := time.Now()
		lost := asm.push(now.Sub(began).Milliseconds(), p, func(frame []byte, ts uint32) {
			opened, err := dec.Decrypt(clear[:0], frame)
			if err != nil {
				s.reject(got, err)
				waiting = true
				return
			}
			clear = opened
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
		waiting = waiting || lost
		keyFrame.want(waiting)
	}
}

func (s *Session) receiveAudio(in *inTrack, dec *e2ee.Receiver, got *Received) {
	var clear []byte
	meter := newMeter()
	for !in.ended.Load() {
		p, _, err := in.packets.ReadRTP()
		if err != nil {
			return
		}
		if len(p.Payload) == 0 {
			continue
		}
		opened, err := dec.Decrypt(clear[:0], p.Payload)
		if err != nil {
			s.reject(got, err)
			continue
		}
		clear = opened
		got.AudioPackets.Add(1)
		got.Bytes.Add(uint64(len(p.Payload)))
		if db, ok := meter.add(clear); ok {
			got.setLevel(db)
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
	// A decoder that was fed with nonsense may give anything, and a level that is no number cannot be told to anybody.
	db = silent
	if m.sum > 0 && !math.IsInf(m.sum, 0) {
		db = min(0, max(db, 10*math.Log10(m.sum/float64(m.n))))
	}
	m.sum, m.n = 0, 0
	return db, true
}
