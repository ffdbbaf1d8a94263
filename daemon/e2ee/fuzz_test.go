package e2ee_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

// window is the shortest piece of protected input that must not come out again. Chance alone makes a frame of 64 kB
// contain a given 16 bytes with a probability of 2^-112.
const window = 16

// showsNothing fails when a piece of protected stands in out.
func showsNothing(t *testing.T, protected, out []byte) {
	t.Helper()
	seen := make(map[[window]byte]struct{}, len(protected))
	for i := 0; i+window <= len(protected); i++ {
		seen[[window]byte(protected[i:])] = struct{}{}
	}
	for i := 0; i+window <= len(out); i++ {
		if _, ok := seen[[window]byte(out[i:])]; ok {
			t.Fatalf("16 bytes of the input stand in the output at %d", i)
		}
	}
}

// encrypts is what every input to a sender must keep: an error brings nothing back; a frame shows at most the clear
// part that is allowed, shares no memory with the input, and opens.
func encrypts(t *testing.T, s *e2ee.Sender, frame []byte, maxClear int) (sealed, opened []byte) {
	t.Helper()
	input := bytes.Clone(frame)
	sealed, err := s.Encrypt(nil, frame)
	if err != nil {
		if sealed != nil || e2ee.Reason(err) == "other" || e2ee.Reason(err) == "" {
			t.Fatalf("%d bytes came back with %q", len(sealed), err)
		}
		return nil, nil
	}
	if !bytes.Equal(input, frame) {
		t.Fatal("the input was changed")
	}
	if bytes.Equal(sealed, frame) {
		t.Fatal("the input came back")
	}
	opened, err = receiver(t, secretA, s.Codec(), 1, e2ee.RandomIV).Decrypt(nil, sealed)
	if err != nil {
		t.Fatalf("sealed frame does not open: %v", err)
	}
	showsNothing(t, frame, sealed[min(maxClear, len(sealed)):])
	for i := range sealed {
		sealed[i]++
	}
	if !bytes.Equal(input, frame) {
		t.Fatal("the output lies in the input's memory")
	}
	for i := range sealed {
		sealed[i]--
	}
	return sealed, opened
}

func FuzzEncryptVP8(f *testing.F) {
	f.Add(vp8Frame(true, ladder[0], 200))
	f.Add(vp8Frame(false, ladder[0], 200))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, frame []byte) {
		sealed, opened := encrypts(t, keyed(t, e2ee.NewVP8Sender(ladder...), 1), frame, 0)
		if sealed == nil {
			return
		}
		if !bytes.Equal(opened, frame) {
			t.Fatal("opens to another frame")
		}
		if n := len(sealed) - len(frame); n != e2ee.Overhead {
			t.Fatalf("overhead %d", n)
		}
	})
}

func FuzzEncryptOpus(f *testing.F) {
	f.Add(opusPacket(0x78, 81))
	f.Add(make([]byte, 81))
	f.Fuzz(func(t *testing.T, packet []byte) {
		sealed, opened := encrypts(t, keyed(t, e2ee.NewOpusSender(0x78, 81), 1), packet, 0)
		if sealed == nil {
			return
		}
		if packet[0] != 0x78 || len(packet) != 81 || len(sealed) != 81+e2ee.Overhead || !bytes.Equal(opened, packet) {
			t.Fatalf("packet of %d bytes, toc %#02x was sent", len(packet), packet[0])
		}
	})
}

func FuzzEncryptH264(f *testing.F) {
	first := accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 200))
	f.Add(first)
	f.Add(accessUnit(slice(false, 1, 100)))
	f.Add(accessUnit([]byte{9, 0x10}, append([]byte{6}, noise(60, 1)...), slice(true, 0, 100), []byte{12, 0xff, 0x80}, slice(true, 0, 100)))
	for _, v := range load[frames](f, "frames.json").Frames {
		if v.Codec == "h264" {
			f.Add([]byte(v.Frame))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		// As the first access unit, and as the second behind one that pinned the parameter sets.
		fresh := keyed(t, e2ee.NewH264Sender(ladder...), 1)
		running := keyed(t, e2ee.NewH264Sender(ladder...), 1)
		pinned, err := running.Encrypt(nil, first)
		if err != nil {
			t.Fatal(err)
		}
		sets := pinned[:len(pinned)-len(slicesOf(pinned))]
		for _, s := range []*e2ee.Sender{fresh, running} {
			sealed, opened := encrypts(t, s, frame, 64)
			if sealed == nil {
				continue
			}
			slices := slicesOf(sealed)
			clear := sealed[:len(sealed)-len(slices)]
			if len(clear) > 62 {
				t.Fatalf("clear part of %d bytes", len(clear))
			}
			allowed := slices[0] == 0x41 && (slices[1]&0xfe == 0x9a || slices[1]&0xe0 == 0xe0) && len(clear) == 4 ||
				slices[0] == 0x65 && (slices[1] == 0x88 || slices[1]&0xfc == 0xb8)
			if !allowed {
				t.Fatalf("slice begins % x behind %d bytes", slices[:2], len(clear))
			}
			if s == running && slices[0] == 0x65 && !bytes.Equal(clear, sets) {
				t.Fatalf("parameter sets are not the pinned ones:\n% x\n% x", clear, sets)
			}
			if bytes.Contains(slices, []byte{0, 0, 1}) || bytes.Contains(slices, []byte{0, 0, 0}) {
				t.Fatal("a start code stands in the ciphertext")
			}
			if !bytes.HasPrefix(opened, sealed[:len(clear)+2]) {
				t.Fatal("clear part changed on the way")
			}
		}
	})
}

// Seeds must be the same in every process that fuzzes, so they are the recorded vectors.
func FuzzDecrypt(f *testing.F) {
	secretOf := func(gen uint32) []byte { return secret(fmt.Sprint(gen)) }
	own := load[frames](f, "frames.json").Secret
	kinds := [...]e2ee.Codec{e2ee.VP8, e2ee.H264, e2ee.Opus}
	type key struct {
		codec e2ee.Codec
		frame string
	}
	sealed := map[key]bool{}
	for _, v := range append(load[[]vector](f, "ours.json"), load[foreign](f, "livekit-client.json").Sealed...) {
		if v.Index != 3 {
			continue // one key is enough; the others make noise
		}
		for i, codec := range kinds {
			if codec == codecNamed[v.Codec] {
				f.Add(uint8(i), []byte(v.Sealed))
				sealed[key{codec, string(v.Sealed)}] = true
			}
		}
	}
	f.Add(uint8(1), accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 60)))
	f.Add(uint8(0), []byte{})
	// What opened once does not open again, so a vector that comes back is no failure.
	var rings [2]*e2ee.Ring
	for i, ivs := range []e2ee.IVStructure{e2ee.RandomIV, e2ee.LiveKitIV} {
		rings[i] = ringOf(f, e2ee.NewEndpoint(), e2ee.RingConfig{IVs: ivs})
		for gen := range uint32(e2ee.Indices) {
			s := secretOf(gen)
			if gen == 3 {
				s = own
			}
			if err := install(f, rings[i], gen, s); err != nil {
				f.Fatal(err)
			}
		}
	}
	f.Fuzz(func(t *testing.T, c uint8, frame []byte) {
		codec := kinds[int(c)%len(kinds)]
		input := bytes.Clone(frame)
		for _, r := range rings {
			out, err := track(t, r, codec).Decrypt(nil, frame)
			if !bytes.Equal(input, frame) {
				t.Fatal("the input was changed")
			}
			if err == nil && !sealed[key{codec, string(frame)}] {
				t.Fatalf("%v: a frame nobody sealed opened to %d bytes", codec, len(out))
			}
			if err != nil && (out != nil || e2ee.Reason(err) == "other") {
				t.Fatalf("%d bytes came back with %q", len(out), err)
			}
		}
	})
}

func FuzzOpenMessage(f *testing.F) {
	// Sealed by hand with an IV that is the same in every process.
	sealed := append([]byte{1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5}, noise(12, 1)...)
	aad := sha256.Sum256(lp([]byte("alcove/data/v1"), transcript[:], author[:], sealed[1:5], sealed[5:13]))
	sealed = gcmOf(f, secretA, "alcove/data/v1", "", 32).Seal(sealed, sealed[13:], []byte(`{"t":"keyframe"}`), aad[:])
	if out, err := opener(f, secretA, transcript, author, 7).Open(sealed); string(out) != `{"t":"keyframe"}` {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(sealed[:e2ee.DataOverhead])
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := opener(t, secretA, transcript, author, 7).Open(data)
		if (err == nil) != bytes.Equal(data, sealed) || err != nil && out != nil {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	})
}
