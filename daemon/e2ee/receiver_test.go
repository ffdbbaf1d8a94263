package e2ee_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

func ringOf(t testing.TB, e *e2ee.Endpoint, config e2ee.RingConfig) *e2ee.Ring {
	t.Helper()
	if config.Kinds == 0 {
		config.Kinds = e2ee.Audio | e2ee.Video
	}
	return e.NewRing(config)
}

func install(t testing.TB, r *e2ee.Ring, gen uint32, secret []byte) error {
	t.Helper()
	key, err := e2ee.NewReceiveKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return r.Install(gen, key)
}

func track(t testing.TB, r *e2ee.Ring, codec e2ee.Codec) *e2ee.Receiver {
	t.Helper()
	rec, err := r.NewReceiver(e2ee.Track{Codec: codec, Encrypted: true})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// drops expects a refusal that brings nothing back.
func drops(t *testing.T, r *e2ee.Receiver, frame []byte, want error) {
	t.Helper()
	dst := make([]byte, 0, len(frame)+64)
	out, err := r.Decrypt(dst, frame)
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	if out != nil || !bytes.Equal(dst[:cap(dst)], make([]byte, cap(dst))) {
		t.Errorf("%d bytes came back with the error", len(out))
	}
}

// sealWith seals one frame under the secret of a generation.
func sealWith(t testing.TB, s *e2ee.Sender, gen uint32, secret, frame []byte) []byte {
	t.Helper()
	if err := s.SetKey(gen, sendKey(t, secret)); err != nil {
		t.Fatal(err)
	}
	out, err := s.Encrypt(nil, frame)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTracksAreTakenAsAnnounced(t *testing.T) {
	e := e2ee.NewEndpoint()
	both := e.NewRing(e2ee.RingConfig{Kinds: e2ee.Audio | e2ee.Video})
	voice := e.NewRing(e2ee.RingConfig{Kinds: e2ee.Audio})
	nothing := e.NewRing(e2ee.RingConfig{})
	for _, c := range []struct {
		ring  *e2ee.Ring
		track e2ee.Track
		want  error
	}{
		{both, e2ee.Track{Codec: e2ee.VP8, Encrypted: true}, nil},
		{both, e2ee.Track{Codec: e2ee.Opus, Encrypted: true}, nil},
		{both, e2ee.Track{Codec: e2ee.VP8}, e2ee.ErrNotEncrypted},
		{both, e2ee.Track{Encrypted: true}, e2ee.ErrCodec},
		{both, e2ee.Track{Codec: 4, Encrypted: true}, e2ee.ErrCodec},
		{voice, e2ee.Track{Codec: e2ee.Opus, Encrypted: true}, nil},
		{voice, e2ee.Track{Codec: e2ee.H264, Encrypted: true}, e2ee.ErrUnannounced},
		{nothing, e2ee.Track{Codec: e2ee.Opus, Encrypted: true}, e2ee.ErrUnannounced},
	} {
		r, err := c.ring.NewReceiver(c.track)
		if !errors.Is(err, c.want) || (r == nil) != (c.want != nil) {
			t.Errorf("%+v: %v, want %v", c.track, err, c.want)
		} else if r != nil && r.Codec() != c.track.Codec {
			t.Errorf("receiver of %v", r.Codec())
		}
	}
}

func TestFramesThatAreNotSealed(t *testing.T) {
	for _, codec := range []e2ee.Codec{e2ee.VP8, e2ee.H264, e2ee.Opus} {
		ring := ringOf(t, e2ee.NewEndpoint(), e2ee.RingConfig{})
		r := track(t, ring, codec)
		for gen := range uint32(e2ee.Indices) {
			if err := install(t, ring, gen, secret(fmt.Sprint(gen))); err != nil {
				t.Fatal(err)
			}
		}
		clear := map[e2ee.Codec][]byte{
			e2ee.VP8: vp8Frame(true, ladder[0], 900), e2ee.Opus: opusPacket(0x78, 81),
			e2ee.H264: accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 900)),
		}[codec]
		clear[len(clear)-1] = 0x80 // no key index
		drops(t, r, clear, e2ee.ErrTrailer)
		drops(t, r, nil, e2ee.ErrShort)
		for n := range e2ee.Overhead + 1 {
			drops(t, r, clear[:n], e2ee.ErrShort)
		}
		drops(t, r, make([]byte, e2ee.MaxFrameSize+1), e2ee.ErrTooLarge)

		// A clear frame that ends as if it were sealed.
		posing := append(bytes.Clone(clear), noise(28, 1)...)
		drops(t, r, append(posing, 12, 3), e2ee.ErrAuthentication)
		drops(t, r, append(posing, 12, 16), e2ee.ErrTrailer)
		drops(t, r, append(posing, 13, 3), e2ee.ErrTrailer)

		// The SFU's own frames: a clear frame and a trailer known from the join.
		sif := []byte("a-random-trailer-of-the-server-as-it-sends-one")
		drops(t, r, append(bytes.Clone(clear), sif...), e2ee.ErrTrailer)
		ring.SetSIFTrailer(sif)
		drops(t, r, append(bytes.Clone(clear), sif...), e2ee.ErrInjected)
		sif[len(sif)-2], sif[len(sif)-1] = 12, 3
		ring.SetSIFTrailer(sif)
		drops(t, r, append(bytes.Clone(clear), sif...), e2ee.ErrInjected)
		ring.SetSIFTrailer(nil)
		drops(t, r, nil, e2ee.ErrShort)
	}
}

// sealedFrames is one sealed frame of each shape, with the receiver that opens it.
func sealedFrames(t testing.TB) map[string]func() (*e2ee.Receiver, []byte) {
	h264 := func(frame []byte, escaped bool) []byte {
		for i := uint32(1); ; i++ {
			s := keyed(t, e2ee.NewH264Sender(ladder...), 1)
			out, err := s.Encrypt(nil, frame)
			if err != nil {
				t.Fatal(err)
			}
			body := out[len(out)-len(slicesOf(out)):]
			if bytes.Contains(body, []byte{0, 0, 3}) == escaped {
				return out
			}
		}
	}
	unit := accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 300))
	frames := map[string]struct {
		codec  e2ee.Codec
		sealed []byte
	}{
		"vp8 key":      {e2ee.VP8, sealWith(t, e2ee.NewVP8Sender(ladder...), 1, secretA, vp8Frame(true, ladder[0], 200))},
		"vp8 inter":    {e2ee.VP8, sealWith(t, e2ee.NewVP8Sender(ladder...), 1, secretA, vp8Frame(false, ladder[0], 200))},
		"opus":         {e2ee.Opus, sealWith(t, e2ee.NewOpusSender(0x78, 81), 1, secretA, opusPacket(0x78, 81))},
		"h264":         {e2ee.H264, h264(unit, false)},
		"h264 escaped": {e2ee.H264, h264(unit, true)},
	}
	out := map[string]func() (*e2ee.Receiver, []byte){}
	for name, f := range frames {
		out[name] = func() (*e2ee.Receiver, []byte) {
			return receiver(t, secretA, f.codec, 1, e2ee.RandomIV), bytes.Clone(f.sealed)
		}
	}
	return out
}

// Every change of one byte, at every place and to every value, and every cut, is refused; the frame itself opens.
func TestEveryChangedByteIsRefused(t *testing.T) {
	for name, make := range sealedFrames(t) {
		t.Run(name, func(t *testing.T) {
			r, sealed := make()
			for i, good := range sealed {
				for v := range 256 {
					if sealed[i] = byte(v); byte(v) == good {
						continue
					}
					if out, err := r.Decrypt(nil, sealed); err == nil || out != nil {
						t.Fatalf("byte %d of %d changed from %#02x to %#02x: opened", i, len(sealed), good, v)
					}
				}
				sealed[i] = good
			}
			for n := range sealed {
				if out, err := r.Decrypt(nil, sealed[:n]); err == nil || out != nil {
					t.Fatalf("cut to %d of %d bytes: opened", n, len(sealed))
				}
				if out, err := r.Decrypt(nil, sealed[len(sealed)-n:]); err == nil || out != nil {
					t.Fatalf("last %d of %d bytes: opened", n, len(sealed))
				}
			}
			if _, err := r.Decrypt(nil, sealed); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			drops(t, r, sealed, e2ee.ErrReplay)
		})
	}
}

// Escapes that a sender would not write do not open, though their content is authentic.
func TestNeedlessEscapesAreRefused(t *testing.T) {
	r, sealed := sealedFrames(t)["h264 escaped"]()
	body := len(sealed) - len(slicesOf(sealed))
	i := body + bytes.Index(sealed[body:], []byte{0, 0, 3})
	drops(t, r, append(bytes.Clone(sealed[:i+2]), sealed[i+3:]...), e2ee.ErrMalformed)
	drops(t, r, append(append(bytes.Clone(sealed[:i+3]), 3), sealed[i+3:]...), e2ee.ErrAuthentication)
	if _, err := r.Decrypt(nil, sealed); err != nil {
		t.Fatal(err)
	}
}

func TestIndexAndKeyMustMatch(t *testing.T) {
	ring := ringOf(t, e2ee.NewEndpoint(), e2ee.RingConfig{})
	r := track(t, ring, e2ee.Opus)
	frame := sealWith(t, e2ee.NewOpusSender(0x78, 81), 5, secretA, opusPacket(0x78, 81))
	drops(t, r, frame, e2ee.ErrNoKey)
	if err := install(t, ring, 5, secretB); err != nil {
		t.Fatal(err)
	}
	drops(t, r, frame, e2ee.ErrAuthentication)
	if err := install(t, ring, 6, secretA); err != nil {
		t.Fatal(err)
	}
	drops(t, r, frame, e2ee.ErrAuthentication)
	// The index is not authenticated: under the index of its key, the frame opens. Once.
	frame[len(frame)-1] = 6
	if _, err := r.Decrypt(nil, frame); err != nil {
		t.Error(err)
	}
	drops(t, r, frame, e2ee.ErrReplay)
}

func TestOwnKeysAreNotReceived(t *testing.T) {
	e := e2ee.NewEndpoint()
	s := e2ee.NewOpusSender(0x78, 81)
	key, err := e.SendKey(secretA)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetKey(1, key); err != nil {
		t.Fatal(err)
	}
	reflected, err := s.Encrypt(nil, opusPacket(0x78, 81))
	if err != nil {
		t.Fatal(err)
	}
	ring := ringOf(t, e, e2ee.RingConfig{})
	if err := install(t, ring, 1, secretA); !errors.Is(err, e2ee.ErrOwnKey) {
		t.Fatalf("own key installed: %v", err)
	}
	if err := install(t, ring, 1, secretB); err != nil {
		t.Fatal(err)
	}
	drops(t, track(t, ring, e2ee.Opus), reflected, e2ee.ErrAuthentication)
}

func TestReceiveGenerationsRise(t *testing.T) {
	ring := ringOf(t, e2ee.NewEndpoint(), e2ee.RingConfig{})
	if err := ring.Install(1, nil); !errors.Is(err, e2ee.ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
	for _, step := range []struct {
		gen    uint32
		secret string
		want   error
	}{
		{3, "a", nil}, {3, "b", e2ee.ErrGeneration}, {2, "b", e2ee.ErrGeneration}, {4, "a", e2ee.ErrKeyReused},
		{4, "b", nil}, {19, "c", nil}, {18, "d", e2ee.ErrGeneration}, {20, "b", e2ee.ErrKeyReused},
	} {
		if err := install(t, ring, step.gen, secret(step.secret)); !errors.Is(err, step.want) {
			t.Errorf("generation %d, secret %s: %v, want %v", step.gen, step.secret, err, step.want)
		}
	}
	// Generation 19 took the index of 3.
	frame := sealWith(t, e2ee.NewOpusSender(0x78, 81), 3, secret("a"), opusPacket(0x78, 81))
	drops(t, track(t, ring, e2ee.Opus), frame, e2ee.ErrAuthentication)
	ring.RetireAll()
	if err := install(t, ring, 19, secret("e")); !errors.Is(err, e2ee.ErrGeneration) {
		t.Errorf("an old generation after all were retired: %v", err)
	}
	if err := install(t, ring, 20, secret("c")); !errors.Is(err, e2ee.ErrKeyReused) {
		t.Errorf("an old secret after all were retired: %v", err)
	}
	if err := install(t, ring, 20, secret("e")); err != nil {
		t.Error(err)
	}
}

func TestRetiredKeysOpenNothing(t *testing.T) {
	ring := ringOf(t, e2ee.NewEndpoint(), e2ee.RingConfig{})
	r := track(t, ring, e2ee.Opus)
	sealed := map[uint32][]byte{}
	for gen := uint32(1); gen <= 4; gen++ {
		if err := install(t, ring, gen, secret(fmt.Sprint(gen))); err != nil {
			t.Fatal(err)
		}
		sealed[gen] = sealWith(t, e2ee.NewOpusSender(0x78, 81), gen, secret(fmt.Sprint(gen)), opusPacket(0x78, 81))
	}
	ring.Retire(2)
	ring.Retire(17) // the index of 1, another generation
	drops(t, r, sealed[2], e2ee.ErrNoKey)
	if _, err := r.Decrypt(nil, sealed[1]); err != nil {
		t.Error(err)
	}
	ring.RetireAll()
	for gen := uint32(1); gen <= 4; gen++ {
		drops(t, r, sealed[gen], e2ee.ErrNoKey)
	}
	// The IV set of a retired key serves a later one; it has forgotten.
	if err := install(t, ring, 5, secretA); err != nil {
		t.Fatal(err)
	}
	frame := sealWith(t, e2ee.NewOpusSender(0x78, 81), 5, secretA, opusPacket(0x78, 81))
	if _, err := r.Decrypt(nil, frame); err != nil {
		t.Error(err)
	}
}

// IVs are remembered over all tracks of a member, exactly, to the last of 2^17; forgeries do not fill the memory.
func TestFramesOpenOnce(t *testing.T) {
	ring := ringOf(t, e2ee.NewEndpoint(), e2ee.RingConfig{})
	if err := install(t, ring, 1, secretA); err != nil {
		t.Fatal(err)
	}
	audio, again := track(t, ring, e2ee.Opus), track(t, ring, e2ee.Opus)
	key := sendKey(t, secretA)
	s := e2ee.NewOpusSender(0x78, 3)
	if err := s.SetKey(1, key); err != nil {
		t.Fatal(err)
	}
	packet := opusPacket(0x78, 3)
	const size = 3 + e2ee.Overhead
	all := make([]byte, 0, e2ee.MaxFrames*size)
	var out []byte
	for i := range e2ee.MaxFrames {
		var err error
		if all, err = s.Encrypt(all, packet); err != nil {
			t.Fatal(err)
		}
		frame := all[i*size:]
		forged := append(bytes.Clone(frame[:size-3]), frame[size-3]+1, 12, 1)
		if i%64 == 0 {
			drops(t, audio, forged, e2ee.ErrAuthentication)
		}
		if out, err = audio.Decrypt(out[:0], frame); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
	for i := 0; i < e2ee.MaxFrames; i += 97 {
		drops(t, audio, all[i*size:][:size], e2ee.ErrReplay)
		drops(t, again, all[i*size:][:size], e2ee.ErrReplay)
	}
	more := sealWith(t, e2ee.NewOpusSender(0x78, 3), 1, secretA, packet)
	drops(t, audio, more, e2ee.ErrKeyExhausted)
}

// A frame that two tracks are given at the same time opens on one of them.
func TestFramesOpenOnceAtOnce(t *testing.T) {
	ring := ringOf(t, e2ee.NewEndpoint(), e2ee.RingConfig{})
	if err := install(t, ring, 1, secretA); err != nil {
		t.Fatal(err)
	}
	s := keyed(t, e2ee.NewOpusSender(0x78, 81), 1)
	const n, tracks = 300, 4
	var sealed [n][]byte
	for i := range sealed {
		var err error
		if sealed[i], err = s.Encrypt(nil, opusPacket(0x78, 81)); err != nil {
			t.Fatal(err)
		}
	}
	var opened [tracks]int
	var wg sync.WaitGroup
	for k := range tracks {
		r := track(t, ring, e2ee.Opus)
		wg.Go(func() {
			for _, frame := range sealed {
				if _, err := r.Decrypt(nil, frame); err == nil {
					opened[k]++
				} else if !errors.Is(err, e2ee.ErrReplay) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if total := opened[0] + opened[1] + opened[2] + opened[3]; total != n {
		t.Errorf("%d frames opened %d times", n, total)
	}
}

// jsFrame seals as livekit-client does, with IVs of its form: Tink chooses IVs by itself, so the frames come from the
// standard library's AES-GCM.
func jsFrame(t testing.TB, secret []byte, ssrc, timestamp, count uint32, packet []byte) []byte {
	t.Helper()
	var iv [12]byte
	binary.BigEndian.PutUint32(iv[:], ssrc)
	binary.BigEndian.PutUint32(iv[4:], timestamp)
	binary.BigEndian.PutUint32(iv[8:], timestamp-count%0xffff)
	out := rawGCM(t, secret).Seal(bytes.Clone(packet[:1]), iv[:], packet[1:], packet[:1])
	return append(append(out, iv[:]...), 12, 1)
}

func TestWindowOfStructuredIVs(t *testing.T) {
	const frame = 960
	packet := opusPacket(0x78, 20)
	type step struct {
		ssrc, count uint32
		want        error
	}
	for name, steps := range map[string][]step{
		"in order":         {{1, 100, nil}, {1, 101, nil}, {1, 102, nil}},
		"1,023 back":       {{1, 5000, nil}, {1, 5000 - 1023, nil}},
		"1,024 back":       {{1, 5000, nil}, {1, 5000 - 1024, e2ee.ErrStale}},
		"half a turn back": {{1, 40000, nil}, {1, 40000 - 32767, e2ee.ErrStale}},
		"a long gap":       {{1, 100, nil}, {1, 30100, nil}, {1, 101, e2ee.ErrStale}},
		"count wraps":      {{1, 65530, nil}, {1, 65536, nil}, {1, 65531, nil}, {1, 64000, e2ee.ErrStale}},
		"two streams":      {{1, 5000, nil}, {2, 100, nil}, {1, 3000, e2ee.ErrStale}, {2, 101, nil}},
		"late frames do not move the window": {
			{1, 5000, nil}, {1, 4500, nil}, {1, 4000, nil}, {1, 3990, nil}, {1, 3900, e2ee.ErrStale},
		},
		"many streams": {
			{1, 5000, nil}, {2, 1, nil}, {3, 1, nil}, {4, 1, nil}, {5, 1, nil}, {6, 1, nil}, {7, 1, nil}, {8, 1, nil},
			{1, 3000, e2ee.ErrStale}, {1, 5001, nil}, {9, 1, nil}, {1, 3001, e2ee.ErrStale}, {2, 2, nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiver(t, secretA, e2ee.Opus, 1, e2ee.LiveKitIV)
			for i, s := range steps {
				sealed := jsFrame(t, secretA, s.ssrc, s.count*frame, s.count, packet)
				if s.want != nil {
					drops(t, r, sealed, s.want)
				} else if _, err := r.Decrypt(nil, sealed); err != nil {
					t.Errorf("step %d: %v", i, err)
				}
				if s.want == nil {
					drops(t, r, sealed, e2ee.ErrReplay)
				}
			}
		})
	}
	// A random IV is not livekit-client's (with a probability of 1 - 2^-16; this one is fixed).
	r := receiver(t, secretA, e2ee.Opus, 1, e2ee.LiveKitIV)
	random := jsFrame(t, secretA, 1, 100, 0, packet)
	copy(random[len(random)-14:], noise(12, 1))
	drops(t, r, random, e2ee.ErrMalformed)
}

func TestDecryptAllocates(t *testing.T) {
	for name, frames := range sealedFrames(t) {
		_, sealed := frames()
		n := 0
		const runs = 50
		receivers := make([]*e2ee.Receiver, runs+1) // a frame opens once
		dst := make([]byte, 0, 1000)
		for i := range receivers {
			receivers[i], _ = frames() // a forgery makes its buffer grow
			if _, err := receivers[i].Decrypt(nil, append(bytes.Clone(sealed[:len(sealed)-3]), sealed[len(sealed)-3]^1, 12, 1)); err == nil {
				t.Fatal("forgery opened")
			}
		}
		allocs := testing.AllocsPerRun(runs, func() {
			if _, err := receivers[n].Decrypt(dst, sealed); err != nil {
				t.Fatal(err)
			}
			n++
		})
		if allocs > 2 {
			t.Errorf("%s: %v allocations a frame", name, allocs)
		}
	}
}
