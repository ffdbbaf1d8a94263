package e2ee_test

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"math"
	"slices"
	"syscall"
	"testing"
	"time"

	sdk "github.com/livekit/server-sdk-go/v2/e2ee"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

// rawSeal is what frame encryption costs at least: AES-GCM that allocates its output and draws a random IV.
func rawSeal(gcm cipher.AEAD, frame []byte) []byte {
	out := make([]byte, 12, 12+len(frame)+16)
	rand.Read(out)
	return gcm.Seal(out, out, frame[10:], frame[:10])
}

func benchFrames(b testing.TB) (vp8, h264 []byte, s *e2ee.Sender) {
	s = e2ee.NewH264Sender(ladder...)
	unit := accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 10_000))
	return vp8Frame(true, ladder[0], 10_000), unit, s
}

// sealer gives the sender a new key before the old one is used up.
type sealer struct {
	s   *e2ee.Sender
	dst []byte
	n   int
}

func (s *sealer) seal(b testing.TB, frame []byte) {
	if s.n%e2ee.MaxFrames == 0 {
		if err := s.s.SetKey(uint32(s.n/e2ee.MaxFrames), sendKey(b, secretA)); err != nil {
			b.Fatal(err)
		}
	}
	s.n++
	out, err := s.s.Encrypt(s.dst[:0], frame)
	if err != nil {
		b.Fatal(err)
	}
	s.dst = out
}

func BenchmarkEncryptVP8_10k(b *testing.B) {
	frame, _, _ := benchFrames(b)
	s := sealer{s: e2ee.NewVP8Sender(ladder...), dst: make([]byte, 0, 12_000)}
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		s.seal(b, frame)
	}
}

func BenchmarkRawGCM_10k(b *testing.B) {
	frame, _, _ := benchFrames(b)
	gcm := rawGCM(b, secretA)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		rawSeal(gcm, frame)
	}
}

func BenchmarkEncryptH264_10k(b *testing.B) {
	_, frame, sender := benchFrames(b)
	s := sealer{s: sender, dst: make([]byte, 0, 12_000)}
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		s.seal(b, frame)
	}
}

func BenchmarkSDKEncryptH264_10k(b *testing.B) {
	_, frame, _ := benchFrames(b)
	block := blockOf(b, secretA)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sdk.EncryptGCMH264SampleCustomCipher(frame, 0, block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncryptOpus(b *testing.B) {
	packet := opusPacket(0x78, 81)
	s := sealer{s: e2ee.NewOpusSender(0x78, 81), dst: make([]byte, 0, 200)}
	b.ReportAllocs()
	for b.Loop() {
		s.seal(b, packet)
	}
}

func BenchmarkDecryptVP8_10k(b *testing.B) {
	benchDecrypt(b, e2ee.NewVP8Sender(ladder...), vp8Frame(true, ladder[0], 10_000))
}

func BenchmarkDecryptH264_10k(b *testing.B) {
	_, frame, sender := benchFrames(b)
	benchDecrypt(b, sender, frame)
}

// benchDecrypt opens each frame once: sealing it again would be measured too, so frames are sealed in batches while the clock stands.
func benchDecrypt(b *testing.B, s *e2ee.Sender, frame []byte) {
	var batch [4096][]byte
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	dst := make([]byte, 0, 12_000)
	var r *e2ee.Receiver
	for i := range b.N {
		if i%len(batch) == 0 {
			b.StopTimer()
			gen := uint32(i / len(batch))
			secret := secret(string(rune(gen)))
			if err := s.SetKey(gen, sendKey(b, secret)); err != nil {
				b.Fatal(err)
			}
			for k := range batch {
				var err error
				if batch[k], err = s.Encrypt(batch[k][:0], frame); err != nil {
					b.Fatal(err)
				}
			}
			r = receiver(b, secret, s.Codec(), gen, e2ee.RandomIV)
			b.StartTimer()
		}
		out, err := r.Decrypt(dst, batch[i%len(batch)])
		if err != nil || !bytes.Equal(out[:1], frame[:1]) {
			b.Fatal(err)
		}
	}
}

// cpu is the user and system time that the process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ratio runs two functions in turn, pair after pair, and returns the median ratio of their CPU time.
func ratio(b *testing.B, pairs, rounds int, one, other func()) float64 {
	run := func(f func()) float64 {
		start := cpu(b)
		for range rounds {
			f()
		}
		return float64(cpu(b) - start)
	}
	run(one)
	run(other)
	ratios := make([]float64, 0, pairs)
	for i := range pairs {
		if i%2 == 0 {
			a := run(one)
			ratios = append(ratios, a/run(other))
		} else {
			z := run(other)
			ratios = append(ratios, run(one)/z)
		}
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// BenchmarkGoals compares sealing with its rivals on the same frame in the same process, and each rival with itself. It
// fails when a goal is missed by more than the rival misses itself. Run it with -benchtime 1x.
func BenchmarkGoals(b *testing.B) {
	vp8, h264, sender := benchFrames(b)
	ours, ours264 := sealer{s: e2ee.NewVP8Sender(ladder...), dst: make([]byte, 0, 12_000)}, sealer{s: sender, dst: make([]byte, 0, 12_000)}
	gcm, block := rawGCM(b, secretA), blockOf(b, secretA)
	raw := func() { rawSeal(gcm, vp8) }
	theirs := func() {
		if _, err := sdk.EncryptGCMH264SampleCustomCipher(h264, 0, block); err != nil {
			b.Fatal(err)
		}
	}
	const pairs = 11
	for range b.N {
		for _, g := range []struct {
			name          string
			rounds        int
			one, rival    func()
			goal, stretch float64
		}{
			{"e2ee_vp8_10k_vs_raw_gcm", 20_000, func() { ours.seal(b, vp8) }, raw, 1.5, 1.2},
			{"e2ee_h264_10k_vs_sdk", 3_000, func() { ours264.seal(b, h264) }, theirs, 0.7, 0.7},
		} {
			value := ratio(b, pairs, g.rounds, g.one, g.rival)
			spread := math.Abs(ratio(b, pairs, g.rounds, g.rival, g.rival) - 1)
			verdict := "ok"
			if value > g.goal+spread {
				verdict = "short"
				b.Fail()
			}
			fmt.Printf("BENCH name=%s value=%.3f unit=ratio goal=%g stretch=%g n=%d spread=%.3f on=script %s\n",
				g.name, value, g.goal, g.stretch, pairs, spread, verdict)
		}
	}
}
