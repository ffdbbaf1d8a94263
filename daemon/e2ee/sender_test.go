package e2ee_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/alcove-room/alcove/daemon/e2ee"
)

var (
	ladder  = []e2ee.Size{{Width: 640, Height: 360}, {Width: 1280, Height: 720}}
	secretA = secret("a")
	secretB = secret("b")
)

func secret(name string) []byte {
	s := sha256.Sum256([]byte(name))
	return s[:]
}

// noise is n bytes that look like an encoder's and repeat in no window of 16.
func noise(n int, seed uint32) []byte {
	var block [8]byte
	binary.BigEndian.PutUint32(block[:], seed)
	out := make([]byte, 0, n+32)
	for i := uint32(0); len(out) < n; i++ {
		binary.BigEndian.PutUint32(block[4:], i)
		sum := sha256.Sum256(block[:])
		out = append(out, sum[:]...)
	}
	return out[:n]
}

func vp8Frame(key bool, size e2ee.Size, n int) []byte {
	partition := uint32(n / 4)
	tag := 1<<4 | partition<<5
	if !key {
		tag |= 1
	}
	head := []byte{byte(tag), byte(tag >> 8), byte(tag >> 16)}
	if key {
		head = append(head, 0x9d, 0x01, 0x2a)
		head = binary.LittleEndian.AppendUint16(head, uint16(size.Width))
		head = binary.LittleEndian.AppendUint16(head, uint16(size.Height))
	}
	return append(head, noise(n-len(head), uint32(n))...)
}

func opusPacket(toc byte, n int) []byte {
	return append([]byte{toc}, noise(n-1, uint32(n))...)
}

// sendKey is a key for sending from a secret, of an endpoint of its own.
func sendKey(t testing.TB, secret []byte) *e2ee.SendKey {
	t.Helper()
	key, err := e2ee.NewEndpoint().SendKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyed(t testing.TB, s *e2ee.Sender, gen uint32) *e2ee.Sender {
	t.Helper()
	if err := s.SetKey(gen, sendKey(t, secretA)); err != nil {
		t.Fatal(err)
	}
	return s
}

func refuses(t *testing.T, s *e2ee.Sender, frame []byte, want error) {
	t.Helper()
	dst := make([]byte, 0, len(frame)+1000)
	out, err := s.Encrypt(dst, frame)
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	if out != nil {
		t.Errorf("%d bytes came back with the error", len(out))
	}
	if !bytes.Equal(dst[:cap(dst)], make([]byte, cap(dst))) {
		t.Error("the refused frame left something in the buffer")
	}
}

func TestNothingIsSentWithoutKey(t *testing.T) {
	frame := vp8Frame(true, ladder[0], 500)
	s := e2ee.NewVP8Sender(ladder...)
	refuses(t, s, frame, e2ee.ErrNoKey)
	if err := s.SetKey(1, nil); !errors.Is(err, e2ee.ErrNoKey) {
		t.Errorf("setting no key: %v", err)
	}
	refuses(t, s, frame, e2ee.ErrNoKey)

	key := sendKey(t, secretA)
	if err := s.SetKey(1, key); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Encrypt(nil, frame); err != nil {
		t.Fatal(err)
	}
	s.ClearKey()
	refuses(t, s, frame, e2ee.ErrNoKey)
	if err := s.SetKey(1, key); err != nil {
		t.Errorf("the same key under the same generation, after silence: %v", err)
	}
	if _, err := s.Encrypt(nil, frame); err != nil {
		t.Fatal(err)
	}
}

func TestSendGenerationsRise(t *testing.T) {
	a, b, c := sendKey(t, secretA), sendKey(t, secretB), sendKey(t, secret("c"))
	s := e2ee.NewOpusSender(0x78, 81)
	for _, step := range []struct {
		gen  uint32
		key  *e2ee.SendKey
		want error
	}{
		{7, a, nil},
		{7, b, e2ee.ErrGeneration},
		{6, b, e2ee.ErrGeneration},
		{8, a, e2ee.ErrKeyReused},
		{23, b, nil},
		{7, a, e2ee.ErrGeneration},
		{1<<32 - 1, c, nil},
	} {
		if err := s.SetKey(step.gen, step.key); !errors.Is(err, step.want) {
			t.Errorf("generation %d: %v, want %v", step.gen, err, step.want)
		}
	}
	out, err := s.Encrypt(nil, opusPacket(0x78, 81))
	if err != nil {
		t.Fatal(err)
	}
	if index := out[len(out)-1]; index != 15 {
		t.Errorf("index %d of generation 2^32-1", index)
	}
}

func TestSecretsAreWholeAndFresh(t *testing.T) {
	e := e2ee.NewEndpoint()
	for _, n := range []int{0, 16, 31, 33, 64} {
		if _, err := e.SendKey(make([]byte, n)); !errors.Is(err, e2ee.ErrSecret) {
			t.Errorf("send key of %d bytes: %v", n, err)
		}
		if _, err := e2ee.NewReceiveKey(make([]byte, n)); !errors.Is(err, e2ee.ErrSecret) {
			t.Errorf("receive key of %d bytes: %v", n, err)
		}
	}
	if _, err := e.SendKey(secretA); err != nil {
		t.Fatal(err)
	}
	if _, err := e.SendKey(secretA); !errors.Is(err, e2ee.ErrKeyReused) {
		t.Errorf("the same secret again: %v", err)
	}
}

// One key seals 2^17 frames, over all tracks that use it, and not one more.
func TestKeyIsUsedUp(t *testing.T) {
	key := sendKey(t, secretA)
	video, audio := e2ee.NewVP8Sender(ladder...), e2ee.NewOpusSender(0x78, 3)
	for _, s := range []*e2ee.Sender{video, audio} {
		if err := s.SetKey(1, key); err != nil {
			t.Fatal(err)
		}
	}
	packet, frame := opusPacket(0x78, 3), vp8Frame(false, ladder[0], 20)
	var buf []byte
	var err error
	for i := range e2ee.MaxFrames {
		if i%2 == 0 {
			buf, err = audio.Encrypt(buf[:0], packet)
		} else {
			buf, err = video.Encrypt(buf[:0], frame)
		}
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
	}
	for range 3 {
		refuses(t, audio, packet, e2ee.ErrKeyExhausted)
		refuses(t, video, frame, e2ee.ErrKeyExhausted)
	}
	if key.Frames() != e2ee.MaxFrames {
		t.Errorf("%d frames counted", key.Frames())
	}
	if err := audio.SetKey(2, sendKey(t, secretB)); err != nil {
		t.Fatal(err)
	}
	if _, err := audio.Encrypt(nil, packet); err != nil {
		t.Errorf("next generation: %v", err)
	}
}

func TestVP8ClearPart(t *testing.T) {
	good := vp8Frame(true, ladder[0], 500)
	with := func(i int, b byte) []byte {
		f := bytes.Clone(good)
		f[i] = b
		return f
	}
	partition := func(frame []byte, n uint32) []byte {
		f := bytes.Clone(frame)
		f[0], f[1], f[2] = f[0]&0x1f|byte(n<<5), byte(n>>3), byte(n>>11)
		return f
	}
	delta := vp8Frame(false, ladder[0], 500)
	for _, c := range []struct {
		name  string
		frame []byte
		want  error
	}{
		{"empty", nil, e2ee.ErrShort},
		{"three bytes", delta[:3], e2ee.ErrShort},
		{"key frame of header alone", good[:10], e2ee.ErrShort},
		{"version 1", with(0, good[0]|1<<1), e2ee.ErrClearPart},
		{"version 4", with(0, good[0]|4<<1), e2ee.ErrClearPart},
		{"hidden", with(0, good[0]&^(1<<4)), e2ee.ErrClearPart},
		{"start code", with(4, 0x02), e2ee.ErrClearPart},
		{"scaled width", with(7, good[7]|0x40), e2ee.ErrPicture},
		{"scaled height", with(9, good[9]|0x80), e2ee.ErrPicture},
		{"width 641", with(6, good[6]+1), e2ee.ErrPicture},
		{"height 361", with(8, good[8]+1), e2ee.ErrPicture},
		{"mixed sizes", vp8Frame(true, e2ee.Size{Width: 640, Height: 720}, 500), e2ee.ErrPicture},
		{"no first partition", partition(good, 0), e2ee.ErrClearPart},
		{"first partition longer than the frame", partition(good, 491), e2ee.ErrClearPart},
		{"first partition of 2^19-1", partition(good, 1<<19-1), e2ee.ErrClearPart},
		{"inter frame, partition too long", partition(delta, 498), e2ee.ErrClearPart},
		{"inter frame, hidden", append([]byte{delta[0] &^ (1 << 4)}, delta[1:]...), e2ee.ErrClearPart},
		{"too large", vp8Frame(false, ladder[0], e2ee.MaxFrameSize+1), e2ee.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) { refuses(t, keyed(t, e2ee.NewVP8Sender(ladder...), 1), c.frame, c.want) })
	}
	for _, f := range [][]byte{
		good, delta, partition(good, 490), partition(delta, 497), vp8Frame(true, ladder[1], 60_000),
		partition(good[:11], 1), partition(delta[:4], 1),
	} {
		out, err := keyed(t, e2ee.NewVP8Sender(ladder...), 1).Encrypt(nil, f)
		if err != nil {
			t.Errorf("frame of %d bytes: %v", len(f), err)
		} else if len(out) != len(f)+e2ee.Overhead {
			t.Errorf("frame of %d bytes became %d", len(f), len(out))
		}
	}
}

func TestOpusClearPart(t *testing.T) {
	s := keyed(t, e2ee.NewOpusSender(0x78, 81), 1)
	for name, packet := range map[string][]byte{
		"one longer": opusPacket(0x78, 82), "one shorter": opusPacket(0x78, 80), "another mode": opusPacket(0x68, 81),
		"two frames": opusPacket(0x79, 81), "stereo": opusPacket(0x7c, 81),
	} {
		t.Run(name, func(t *testing.T) { refuses(t, s, packet, e2ee.ErrClearPart) })
	}
	refuses(t, s, nil, e2ee.ErrShort)
	refuses(t, s, []byte{0x78}, e2ee.ErrShort)
	out, err := s.Encrypt([]byte("before"), opusPacket(0x78, 81))
	if err != nil || len(out) != 6+81+e2ee.Overhead || string(out[:6]) != "before" || out[6] != 0x78 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
}

func TestCodecs(t *testing.T) {
	for mime, want := range map[string]e2ee.Codec{"video/VP8": e2ee.VP8, "VIDEO/h264": e2ee.H264, "audio/OPUS": e2ee.Opus} {
		if c, err := e2ee.ParseCodec(mime); c != want || err != nil {
			t.Errorf("%s: %v, %v", mime, c, err)
		}
	}
	for _, mime := range []string{"", "video/VP9", "video/AV1", "video/H265", "audio/red", "audio/PCMU", "video/vp8 ", "unknown"} {
		if c, err := e2ee.ParseCodec(mime); c != 0 || !errors.Is(err, e2ee.ErrCodec) {
			t.Errorf("%q: %v, %v", mime, c, err)
		}
	}
	if e2ee.VP8.Kind() != e2ee.Video || e2ee.H264.Kind() != e2ee.Video || e2ee.Opus.Kind() != e2ee.Audio || e2ee.Codec(9).Kind() != 0 {
		t.Error("kinds are mixed up")
	}
	if s := e2ee.NewH264Sender(); s.Codec() != e2ee.H264 {
		t.Error("sender's codec")
	}
}

// Every sentinel has a word of its own, and no word is made from content.
func TestReasons(t *testing.T) {
	words := map[string]bool{}
	for _, w := range e2ee.Reasons() {
		if words[w] || w == "" {
			t.Errorf("word %q twice or empty", w)
		}
		words[w] = true
	}
	s := e2ee.NewVP8Sender(ladder...)
	_, err := s.Encrypt(nil, vp8Frame(true, ladder[0], 100))
	if got := e2ee.Reason(err); got != "no_key" || !words[got] {
		t.Errorf("reason %q", got)
	}
	if e2ee.Reason(nil) != "" || e2ee.Reason(errors.New("x")) != "other" || !words["other"] {
		t.Error("reasons of nil and of foreign errors")
	}
}

// Frame encryption allocates what Tink allocates, once a frame, and nothing itself.
func TestEncryptAllocates(t *testing.T) {
	s := e2ee.NewH264Sender(ladder...)
	idr := accessUnit(spsOf(ladder[0]).nal(), ppsNAL(), slice(true, 0, 10_000))
	for _, c := range []struct {
		s     *e2ee.Sender
		frame []byte
	}{
		{e2ee.NewVP8Sender(ladder...), vp8Frame(true, ladder[0], 10_000)},
		{e2ee.NewVP8Sender(ladder...), vp8Frame(false, ladder[0], 10_000)},
		{e2ee.NewOpusSender(0x78, 81), opusPacket(0x78, 81)},
		{s, idr},
	} {
		keyed(t, c.s, 1)
		dst := make([]byte, 0, 20_000)
		allocs := testing.AllocsPerRun(200, func() {
			if _, err := c.s.Encrypt(dst, c.frame); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 2 {
			t.Errorf("%v: %v allocations a frame", c.s.Codec(), allocs)
		}
		t.Logf("%v: %v allocations a frame", c.s.Codec(), allocs)
	}
}
