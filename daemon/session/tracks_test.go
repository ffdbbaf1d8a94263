package session

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
)

// scriptedReader is a track whose packets a test feeds in.
type scriptedReader struct {
	packets chan *rtp.Packet
	stopped chan struct{}
	once    sync.Once
}

func newScriptedReader() *scriptedReader {
	return &scriptedReader{packets: make(chan *rtp.Packet, 1024), stopped: make(chan struct{})}
}

func (r *scriptedReader) ReadRTP() (*rtp.Packet, interceptor.Attributes, error) {
	select {
	case p, ok := <-r.packets:
		if !ok {
			return nil, nil, io.EOF
		}
		return p, nil, nil
	case <-r.stopped:
		return nil, nil, errors.New("i/o timeout")
	}
}

func (r *scriptedReader) SetReadDeadline(time.Time) error {
	r.once.Do(func() { close(r.stopped) })
	return nil
}

// farSender seals frames as livekit-client does, with its structured IVs (FrameCryptor.ts).
type farSender struct {
	member *page
	aead   cipher.AEAD
	index  byte
	count  uint32
	seq    uint16
	ts     uint32
}

func newFarSender(t *testing.T, p *page) *farSender {
	t.Helper()
	f := &farSender{member: p, ts: 90_000}
	var secret [32]byte
	until(t, "the far end has a key", 5*time.Second, func() bool {
		return p.get(func() bool {
			if p.send != nil {
				secret, f.index = p.send.Secret, p.send.Index
			}
			return p.send != nil
		})
	})
	key, err := hkdf.Key(sha256.New, secret[:], []byte("LKFrameEncryptionKey"), string(make([]byte, 128)), 16)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	if f.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	return f
}

// seal seals a frame whose first clear bytes stay clear.
func (f *farSender) seal(frame []byte, clear int) []byte {
	f.ts += 6000
	f.count++
	iv := binary.BigEndian.AppendUint32(nil, 1234)
	iv = binary.BigEndian.AppendUint32(iv, f.ts)
	iv = binary.BigEndian.AppendUint32(iv, f.ts-f.count%0xffff)
	out := f.aead.Seal(bytes.Clone(frame[:clear]), iv, frame[clear:], frame[:clear])
	return append(append(out, iv...), 12, f.index)
}

func (f *farSender) picture(key bool) []byte {
	if key {
		return f.seal(vp8Frame(true), 10)
	}
	return f.seal(vp8Frame(false), 3)
}

// frame is the packets of one sealed picture.
func (f *farSender) frame(key bool) []*rtp.Packet { return f.packets(f.picture(key)) }

func (f *farSender) packets(frame []byte) []*rtp.Packet {
	var out []*rtp.Packet
	parts := (&codecs.VP8Payloader{}).Payload(100, frame)
	for i, part := range parts {
		out = append(out, &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: f.seq, Timestamp: f.ts, Marker: i == len(parts)-1}, Payload: part})
		f.seq++
	}
	return out
}

func feed(r *scriptedReader, packets ...*rtp.Packet) {
	for _, p := range packets {
		r.packets <- p
	}
}

// plis counts requests for a key frame with their times.
type plis struct {
	mu sync.Mutex
	at []time.Time
}

func (p *plis) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = append(p.at, time.Now())
}

func (p *plis) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.at)
}

// inCall gives a room with one member, and what that member sends with.
func inCall(t *testing.T) (*room, *farSender) {
	t.Helper()
	r := newRoom(t).run(t)
	p := r.hub.page(agreement.RoleTherapist, "A")
	r.meet(t, p, "a")
	return r, newFarSender(t, p)
}

func (r *room) got(f *farSender) *Received { return &r.member(f.member.e.EID()).received }

func (r *room) track(f *farSender, mime string, asked *plis) *scriptedReader {
	reader := newScriptedReader()
	r.onTrack(&inTrack{identity: f.member.e.EID(), mime: mime, packets: reader, requestKeyFrame: asked.ask})
	return reader
}

func TestReceiveVideo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := inCall(t)
		asked := &plis{}
		reader := r.track(f, mimeVP8, asked)
		time.Sleep(2100 * time.Millisecond) // the SFU sends nothing at all until somebody asks
		if n := asked.count(); n != 6 {
			t.Fatalf("asked %d times in 2.1 s, want each %v", n, keyFrameRepeat)
		}
		for i := 1; i < len(asked.at); i++ {
			if gap := asked.at[i].Sub(asked.at[i-1]); gap != keyFrameRepeat {
				t.Fatalf("gap %v", gap)
			}
		}
		feed(reader, f.frame(false)...)
		synctest.Wait()
		if r.sink.count() != 0 {
			t.Fatal("a picture without its reference was handed on")
		}
		feed(reader, f.frame(true)...)
		feed(reader, f.frame(false)...)
		synctest.Wait()
		got := r.got(f)
		if r.sink.count() != 2 || got.VideoFrames.Load() != 2 || got.Width.Load() != 640 || got.Height.Load() != 360 {
			t.Fatalf("%d frames, %dx%d", r.sink.count(), got.Width.Load(), got.Height.Load())
		}
		n := asked.count()
		time.Sleep(2 * time.Second)
		if asked.count() != n {
			t.Fatal("goes on to ask although it has a key frame")
		}
		// A lost packet: nothing more is shown until the next key frame, which is asked for.
		lost := f.frame(false)
		feed(reader, lost[1:]...)
		time.Sleep(300 * time.Millisecond)
		feed(reader, f.frame(false)...)
		time.Sleep(300 * time.Millisecond)
		if asked.count() == n || r.sink.count() != 2 {
			t.Fatalf("after a loss: asked %d more times, %d frames", asked.count()-n, r.sink.count())
		}
		feed(reader, f.frame(true)...)
		synctest.Wait()
		if r.sink.count() != 3 {
			t.Fatal("does not go on at the key frame")
		}
		// Clear frames, changed frames and the same frame twice never arrive.
		feed(reader, f.packets(vp8Frame(true))...)
		sealed := f.picture(true)
		changed := bytes.Clone(sealed)
		changed[50] ^= 1
		feed(reader, f.packets(changed)...)
		feed(reader, f.packets(sealed)...)
		feed(reader, f.packets(sealed)...)
		synctest.Wait()
		if r.sink.count() != 4 || got.Rejected.Load() != 3 {
			t.Fatalf("%d frames, %d refused", r.sink.count(), got.Rejected.Load())
		}
		close(reader.packets)
	})
}

func TestReceiveAudio(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := inCall(t)
		got := r.got(f)
		if got.Level() != silent {
			t.Fatalf("level %v before any sound", got.Level())
		}
		reader := r.track(f, mimeOpus, &plis{})
		for i := range 5 {
			sealed := f.seal(opusFrame(), 1)
			feed(reader, &rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i)}, Payload: sealed}, &rtp.Packet{}, // padding
				&rtp.Packet{Payload: opusFrame()}) // clear
		}
		synctest.Wait()
		if got.AudioPackets.Load() != 5 || got.Rejected.Load() != 5 || r.sink.count() != 5 {
			t.Fatalf("%d packets, %d refused, %d handed on", got.AudioPackets.Load(), got.Rejected.Load(), r.sink.count())
		}
		got.setLevel(-10)
		time.Sleep(3 * time.Second)
		if got.Level() != silent {
			t.Fatalf("level %v although nothing comes", got.Level())
		}
	})
}

// The SFU announces tracks as it likes. One of a kind is read, strangers' are not, and all loops end with the session.
func TestTracksOfALyingSFU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := inCall(t)
		var readers []*scriptedReader
		for range 50 {
			readers = append(readers, r.track(f, mimeVP8, &plis{}))
		}
		synctest.Wait()
		for _, old := range readers[:49] {
			select {
			case <-old.stopped:
			default:
				t.Fatal("two tracks of one kind are read")
			}
		}
		newest := readers[49]
		sealed := f.frame(true)
		feed(newest, sealed...)
		synctest.Wait()
		again := r.track(f, mimeVP8, &plis{}) // the same frames on one more track
		feed(again, sealed...)
		synctest.Wait()
		if r.sink.count() != 1 {
			t.Fatalf("%d frames", r.sink.count())
		}
		for _, in := range []*inTrack{
			{identity: "stranger", mime: mimeVP8}, {identity: r.agree.EID(), mime: mimeVP8}, {identity: "", mime: mimeOpus},
			{identity: f.member.e.EID(), mime: "video/AV1"}, {identity: f.member.e.EID(), mime: ""},
		} {
			reader := newScriptedReader()
			in.packets, in.requestKeyFrame = reader, func() { t.Error("a key frame was asked for") }
			r.onTrack(in)
			reader.packets <- sealed[0]
			synctest.Wait()
			if len(reader.packets) != 1 {
				t.Fatalf("%q %q is read", in.identity, in.mime)
			}
		}
		// A data message from a stranger, from nobody and from a member who did not seal it.
		for _, identity := range []string{"", "stranger", r.agree.EID(), f.member.e.EID()} {
			for _, payload := range [][]byte{nil, {1}, bytes.Repeat([]byte{1}, 100), []byte(`{"t":"keyframe"}`)} {
				r.onData(identity, payload)
			}
		}
		if err := r.End(""); err != nil {
			t.Fatal(err)
		}
		<-r.result
		synctest.Wait()
		select {
		case <-again.stopped:
		default:
			t.Fatal("a track is read after the end")
		}
	})
}

func TestDataMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := inCall(t)
		p := f.member
		sealer, err := e2ee.NewDataSealer(p.send.Secret[:], p.send.T, p.e.D(), p.send.Gen)
		if err != nil {
			t.Fatal(err)
		}
		before := r.keyFrames
		say := func(body string) []byte {
			sealed, err := sealer.Seal([]byte(body))
			if err != nil {
				t.Fatal(err)
			}
			r.onData(p.e.EID(), sealed)
			return sealed
		}
		sealed := say(`{"t":"keyframe"}`)
		if r.keyFrames != before+1 {
			t.Fatal("a request for a key frame is not followed")
		}
		r.onData(p.e.EID(), sealed) // again
		r.onData("stranger", sealed)
		say(`{"t":"keyframe","x":1}`)
		say(`{"t":"report","bps":-1}`)
		say(`not json`)
		say(`{"t":"unmute"}`)
		if r.keyFrames != before+1 || r.captures() {
			t.Fatal("something else was followed")
		}
		// The room's own message opens at the member it is for.
		own, err := r.keys.seal([]byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		key := p.recv[len(p.recv)-1]
		opener, err := e2ee.NewDataOpener(key.Secret[:], key.T, key.D, key.Gen)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := opener.Open(own); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
	})
}

// bound is a track that is bound to a connection which keeps what is written.
type bound struct {
	webrtc.TrackLocalContext
	mime    string
	packets []*rtp.Packet
}

func (b *bound) CodecParameters() []webrtc.RTPCodecParameters {
	clock := uint32(90000)
	channels := uint16(0)
	if b.mime == mimeOpus {
		clock, channels = 48000, 2
	}
	return []webrtc.RTPCodecParameters{{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: b.mime, ClockRate: clock, Channels: channels}, PayloadType: 96}}
}
func (b *bound) HeaderExtensions() []webrtc.RTPHeaderExtensionParameter { return nil }
func (b *bound) SSRC() webrtc.SSRC                                      { return 7 }
func (b *bound) SSRCRetransmission() webrtc.SSRC                        { return 0 }
func (b *bound) SSRCForwardErrorCorrection() webrtc.SSRC                { return 0 }
func (b *bound) ID() string                                             { return "x" }
func (b *bound) WriteStream() webrtc.TrackLocalWriter                   { return b }
func (b *bound) RTCPReader() interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func([]byte, interceptor.Attributes) (int, interceptor.Attributes, error) { return 0, nil, io.EOF })
}

func (b *bound) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	b.packets = append(b.packets, &rtp.Packet{Header: h.Clone(), Payload: bytes.Clone(payload)})
	return len(payload), nil
}

func (b *bound) Write(p []byte) (int, error) { return len(p), nil }

func TestOutTrack(t *testing.T) {
	asked := 0
	for _, mime := range []string{mimeVP8, mimeOpus} {
		track, err := newOutTrack(mime, 640, 360, func() { asked++ }, NewMetrics())
		if err != nil {
			t.Fatal(err)
		}
		if sent, err := track.Write(make([]byte, 5000), 1); sent || err != nil {
			t.Fatal("a frame without a connection went somewhere")
		}
		local, err := track.attach()
		if err != nil {
			t.Fatal(err)
		}
		if sent, err := track.Write(make([]byte, 5000), 1); sent || err != nil {
			t.Fatal("a frame went out before the track was negotiated")
		}
		b := &bound{mime: mime}
		if _, err := local.Bind(b); err != nil {
			t.Fatal(err)
		}
		frames := [][]byte{bytes.Repeat([]byte{1}, 5000), bytes.Repeat([]byte{2}, 10), bytes.Repeat([]byte{3}, 2400)}
		if mime == mimeOpus {
			frames = [][]byte{bytes.Repeat([]byte{1}, 110), bytes.Repeat([]byte{2}, 110), bytes.Repeat([]byte{3}, 110)}
		}
		for i, f := range frames {
			if sent, err := track.Write(f, uint32(i*6000)); !sent || err != nil {
				t.Fatalf("%v, %v", sent, err)
			}
		}
		checkPackets(t, mime, b.packets, frames)
		track.detach()
		n := len(b.packets)
		if sent, _ := track.Write(frames[0], 9); sent || len(b.packets) != n {
			t.Fatal("a frame went out on a connection that was left")
		}
		track.onRTCP(&rtcp.PictureLossIndication{})
		track.onRTCP(&rtcp.FullIntraRequest{})
		track.onRTCP(&rtcp.ReceiverReport{})
	}
	if asked != 4 {
		t.Fatalf("%d requests for a key frame, want 4", asked)
	}
	if _, err := newOutTrack("video/AV1", 1, 1, nil, nil); err == nil {
		t.Fatal("a codec without a payload format")
	}
}

func checkPackets(t *testing.T, mime string, packets []*rtp.Packet, frames [][]byte) {
	t.Helper()
	frame, seq := 0, packets[0].SequenceNumber
	var body []byte
	for i, p := range packets {
		if p.SequenceNumber != seq+uint16(i) {
			t.Fatalf("%s: packet %d has number %d after %d", mime, i, p.SequenceNumber, seq)
		}
		if len(p.Payload) > rtpMTU {
			t.Fatalf("%s: %d bytes in a packet", mime, len(p.Payload))
		}
		if want := packets[0].Timestamp + uint32(frame*6000); p.Timestamp != want {
			t.Fatalf("%s: frame %d has time %d, want %d", mime, frame, p.Timestamp, want)
		}
		part := p.Payload
		if mime == mimeVP8 {
			var err error
			if part, err = (&codecs.VP8Packet{}).Unmarshal(p.Payload); err != nil {
				t.Fatal(err)
			}
		}
		body = append(body, part...)
		last := len(body) == len(frames[frame])
		if p.Marker != (last && mime == mimeVP8) {
			t.Fatalf("%s: marker %v in packet %d", mime, p.Marker, i)
		}
		if last {
			if !bytes.Equal(body, frames[frame]) {
				t.Fatalf("%s: frame %d arrives changed", mime, frame)
			}
			frame, body = frame+1, nil
		}
	}
	if frame != len(frames) {
		t.Fatalf("%s: %d of %d frames", mime, frame, len(frames))
	}
}

var _ webrtc.TrackLocal = (*lksdk.LocalTrack)(nil)

// A stream without an end of frame, and one whose numbers jump back, cost neither memory nor the picture.
func TestAssemblerBounds(t *testing.T) {
	a := newVideoAssembler(mimeVP8)
	part := append([]byte{0x10}, make([]byte, 1200)...) // S, partition 0
	for i := range 2 * e2ee.MaxFrameSize / 1200 {
		a.push(int64(i), &rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(i), Timestamp: 1}, Payload: part}, func([]byte, uint32) {
			t.Fatal("a frame without an end")
		})
		if len(a.frame) > e2ee.MaxFrameSize || len(a.held) > maxHeld+1 {
			t.Fatalf("%d bytes, %d packets held", len(a.frame), len(a.held))
		}
	}
	for i := range 5000 { // every second one is missing
		a.push(0, &rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(10_000 + 2*i), Timestamp: 2}, Payload: part}, func([]byte, uint32) {})
		if len(a.held) > maxHeld+1 {
			t.Fatalf("%d packets held", len(a.held))
		}
	}
	got := 0
	back := a.next - 20_000
	for i := range uint16(maxLate + 50) {
		p := &rtp.Packet{Header: rtp.Header{SequenceNumber: back + i, Timestamp: uint32(i) + 10, Marker: true}, Payload: part}
		a.push(0, p, func([]byte, uint32) { got++ })
	}
	if got < 40 {
		t.Fatalf("%d frames after the numbers jumped back", got)
	}
}

func TestMeter(t *testing.T) {
	m := newMeter()
	for range 1000 { // garbage
		junk := make([]byte, 80)
		if _, err := rand.Read(junk); err != nil {
			t.Fatal(err)
		}
		if db, ok := m.add(junk); ok && (math.IsNaN(db) || db > 0 || db < silent) {
			t.Fatalf("garbage has %v dBFS", db)
		}
	}
	m.add(nil)
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatal("ffmpeg is missing: make deps")
	}
	for _, c := range []struct {
		source    string
		low, high float64
	}{
		{"sine=frequency=440:duration=3:sample_rate=48000,volume=-14dB", -60, -15}, // lavfi's sine has 1/8 of full scale
		{"anullsrc=r=48000:cl=mono,atrim=duration=3", silent, -70},
	} {
		ogg, err := exec.Command(ffmpeg, "-v", "error", "-f", "lavfi", "-i", c.source, "-c:a", "libopus", "-b:a", "32k", "-vbr", "off",
			"-application", "lowdelay", "-f", "ogg", "-").Output()
		if err != nil {
			t.Fatal(err)
		}
		var levels []float64
		m := newMeter()
		for _, packet := range oggPackets(ogg)[2:] { // behind the two headers (RFC 7845 section 3)
			if db, ok := m.add(packet); ok {
				levels = append(levels, db)
			}
		}
		if len(levels) < 2 || slices.Min(levels[1:]) < c.low || slices.Max(levels[1:]) > c.high {
			t.Errorf("%s: %v dBFS, want %v to %v", c.source, levels, c.low, c.high)
		}
	}
}

// oggPackets reads the packets of an Ogg stream (RFC 3533 section 6).
func oggPackets(b []byte) [][]byte {
	var out [][]byte
	var open []byte
	for len(b) > 27 {
		n := int(b[26])
		table, body := b[27:27+n], b[27+n:]
		for _, size := range table {
			open = append(open, body[:size]...)
			body = body[size:]
			if size < 255 {
				out, open = append(out, open), nil
			}
		}
		b = body
	}
	return out
}

func TestPictureFacts(t *testing.T) {
	key := vp8Frame(true)
	w, h, ok := frameSize(mimeVP8, key)
	if !isKeyFrame(mimeVP8, key) || isKeyFrame(mimeVP8, vp8Frame(false)) || !ok || w != 640 || h != 360 {
		t.Fatal(fmt.Sprint(w, h, ok))
	}
	for n := range key {
		isKeyFrame(mimeVP8, key[:n])
		isKeyFrame(mimeH264, key[:n])
		frameSize(mimeVP8, key[:n])
	}
	if !isKeyFrame(mimeH264, []byte{0, 0, 0, 1, 0x67, 1, 0, 0, 1, 0x65, 9}) || isKeyFrame(mimeH264, []byte{0, 0, 0, 1, 0x41, 9}) {
		t.Fatal("H.264 key frames are not told apart")
	}
}
