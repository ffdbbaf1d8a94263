package e2ee

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// slowEscape is emulation prevention byte by byte, as livekit-client writes it.
func slowEscape(data []byte) []byte {
	var out []byte
	run := 0
	for _, b := range data {
		if b <= 3 && run >= 2 {
			out, run = append(out, 3), 0
		}
		out = append(out, b)
		if b == 0 {
			run++
		} else {
			run = 0
		}
	}
	return out
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 0, 3, 0, 0, 2, 0, 0, 4, 0}, uint8(5), uint8(9))
	f.Add(make([]byte, 100), uint8(1), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, a, b uint8) {
		want := slowEscape(data)
		// In three pieces, as a sender does it, behind something that is not escaped.
		i, j := min(int(a), len(data)), min(int(b), len(data))
		i, j = min(i, j), max(i, j)
		got, run := appendEscaped([]byte{0, 0}, data[:i], 0)
		got, run = appendEscaped(got, data[i:j], run)
		got, _ = appendEscaped(got, data[j:], run)
		if !bytes.Equal(got[2:], want) {
			t.Fatalf("% x escaped to\n% x, want\n% x", data, got[2:], want)
		}
		if bytes.Contains(want, []byte{0, 0, 1}) {
			t.Fatal("start code")
		}
		if back, err := appendUnescaped([]byte{7}, want); err != nil || !bytes.Equal(back[1:], data) {
			t.Fatalf("% x back to % x, %v", want, back, err)
		}
		// Whatever unescapes is what we would have written.
		if back, err := appendUnescaped(nil, data); err == nil && !bytes.Equal(slowEscape(back), data) {
			t.Fatalf("% x opened to % x", data, back)
		}
	})
}

func FuzzSPS(f *testing.F) {
	for _, s := range []sps{
		{level: 31, log2MaxFrameNum: 4, pocType: 2, refFrames: 1, mbWidth: 40, mbHeight: 23, cropBottom: 4},
		{level: 52, log2MaxFrameNum: 16, pocType: 0, log2MaxPOC: 16, refFrames: 16, mbWidth: 256, mbHeight: 256, cropRight: 7},
	} {
		f.Add(s.append(nil)[4:])
	}
	f.Add([]byte{0x67, 0x42, 0xc0, 0x0a, 0xda, 0x11, 0xec, 0x04, 0x40, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x07, 0x83, 0xc4, 0x89, 0xa8})
	f.Fuzz(func(t *testing.T, nal []byte) {
		s, err := parseSPS(nal)
		if err != nil {
			if Reason(err) != "parameters" {
				t.Fatal(err)
			}
			return
		}
		out := s.append(nil)
		if !bytes.HasPrefix(out, []byte{0, 0, 0, 1, 0x67, 66, 0xe0, s.level}) || len(out) > 40 {
			t.Fatalf("written as % x", out)
		}
		again, err := parseSPS(out[4:])
		if err != nil || again != s {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
		if size := s.size(); size.Width < 1 || size.Height < 1 || size.Width > 4096 || size.Height > 4096 {
			t.Fatalf("size %v", size)
		}
	})
}

func FuzzPPS(f *testing.F) {
	for _, p := range []pps{{refIndices: 1}, {refIndices: 32, initQP: -26, chromaQPOffset: 12, deblocking: true, constrainedIntra: true}} {
		f.Add(p.append(nil)[4:])
	}
	f.Add([]byte{0x68, 0xce, 0x0f, 0xc8})
	f.Fuzz(func(t *testing.T, nal []byte) {
		p, err := parsePPS(nal)
		if err != nil {
			if Reason(err) != "parameters" {
				t.Fatal(err)
			}
			return
		}
		out := p.append(nil)
		if !bytes.HasPrefix(out, []byte{0, 0, 0, 1, 0x68}) || len(out) > 20 {
			t.Fatalf("written as % x", out)
		}
		if again, err := parsePPS(out[4:]); err != nil || again != p {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

// An SPS of 64×48, whose fields ffmpeg's trace_headers reads as meant: the VUI is one that libwebrtc leaves alone.
func TestSPSIsWrittenAsLibwebrtcWants(t *testing.T) {
	s := sps{level: 10, log2MaxFrameNum: 4, pocType: 2, refFrames: 1, mbWidth: 4, mbHeight: 3}
	want := []byte{0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x0a, 0xda, 0x11, 0xe8, 0x06, 0xd0, 0x44, 0x23, 0x50}
	if got := s.append(nil); !bytes.Equal(got, want) {
		t.Errorf("% x", got)
	}
}

func TestIVSetRemembersExactly(t *testing.T) {
	s := newIVSet()
	iv := func(i int) *[ivSize]byte {
		var v [ivSize]byte
		binary.BigEndian.PutUint64(v[i%5:], uint64(i)) // many that share bytes; some that share all
		return &v
	}
	for range 2 {
		seen := map[[ivSize]byte]bool{}
		for i := 0; !s.full(); i++ {
			v := iv(i)
			if s.contains(v) != seen[*v] {
				t.Fatalf("iv %d: contains %v", i, !seen[*v])
			}
			if s.add(v) == seen[*v] {
				t.Fatalf("iv %d: added %v", i, !seen[*v])
			}
			seen[*v] = true
		}
		if len(seen) != MaxFrames {
			t.Fatalf("full with %d", len(seen))
		}
		for v := range seen {
			if !s.contains(&v) {
				t.Fatal("forgotten")
			}
		}
		s.clear()
		if s.contains(iv(1)) || s.full() {
			t.Fatal("not cleared")
		}
	}
	if n := testing.AllocsPerRun(1000, func() { s.add(iv(7)); s.contains(iv(8)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	var zero [ivSize]byte
	if s.contains(&zero) || !s.add(&zero) || s.add(&zero) {
		t.Error("the iv of zeros")
	}
}

// interrupted runs a function while a frame is being opened.
type interrupted struct {
	tink.AEAD
	during func()
}

func (i interrupted) Decrypt(ciphertext, associated []byte) ([]byte, error) {
	out, err := i.AEAD.Decrypt(ciphertext, associated)
	i.during()
	return out, err
}

// A key that is destroyed while a frame is being opened opens it no more, whoever has its index by then.
func TestRetiredWhileOpening(t *testing.T) {
	secret, next := bytes.Repeat([]byte{1}, SecretSize), bytes.Repeat([]byte{2}, SecretSize)
	sendKey, err := NewEndpoint().SendKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	s := NewOpusSender(1, 20)
	if err := s.SetKey(1, sendKey); err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Encrypt(nil, bytes.Repeat([]byte{1}, 20))
	if err != nil {
		t.Fatal(err)
	}
	later, err := NewReceiveKey(next)
	if err != nil {
		t.Fatal(err)
	}
	for name, during := range map[string]func(*Ring){
		"retired":     func(r *Ring) { r.Retire(1) },
		"all retired": func(r *Ring) { r.RetireAll() },
		"replaced": func(r *Ring) {
			if err := r.Install(17, later); err != nil {
				t.Error(err)
			}
		},
	} {
		ring := NewEndpoint().NewRing(RingConfig{Kinds: Audio})
		key, err := NewReceiveKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		key.aead = interrupted{key.aead, func() { during(ring) }}
		if err := ring.Install(1, key); err != nil {
			t.Fatal(err)
		}
		r, err := ring.NewReceiver(Track{Codec: Opus, Encrypted: true})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := r.Decrypt(nil, sealed); out != nil || !errors.Is(err, ErrNoKey) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}

// The bit reader never reads past its end and never takes a number that does not fit.
func TestBitReaderEnds(t *testing.T) {
	for n := range 12 {
		r := bitReader{data: make([]byte, n)}
		if r.ue() != 0 || !r.short || r.pos > 8*n+1 {
			t.Errorf("%d zero bytes: read to %d", n, r.pos)
		}
	}
	var w bitWriter
	values := []uint32{0, 1, 2, 254, 255, 65535, 1<<31 - 2}
	for _, v := range values {
		w.ue(v)
		w.se(int32(v))
		w.se(-int32(v))
	}
	w.trail()
	r := bitReader{data: w.data}
	for _, v := range values {
		if a, b, c := r.ue(), r.se(), r.se(); a != v || v < 1<<30 && (b != int32(v) || c != -int32(v)) {
			t.Errorf("%d read as %d, %d, %d", v, a, b, c)
		}
	}
}
