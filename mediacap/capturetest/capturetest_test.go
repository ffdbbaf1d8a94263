package capturetest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/jpeg"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/pion/mediadevices"
	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/capturetest"
	"github.com/alcove-room/alcove/mediacap/encode"
	"github.com/alcove-room/alcove/mediacap/frame"
)

var clock = time.UnixMilli(1_790_000_000_123)

func TestStampIsReadableAtAnySize(t *testing.T) {
	for _, size := range [][2]int{{160, 90}, {320, 180}, {321, 181}, {640, 360}, {640, 480}, {854, 480}, {1280, 720}, {1920, 1080}, {360, 640}} {
		for _, counter := range []uint32{0, 1, 77, 1<<32 - 1} {
			got, err := capturetest.ReadStamp(capturetest.Picture(size[0], size[1], counter, clock))
			if err != nil || got.Counter != counter || !got.Clock.Equal(clock) {
				t.Errorf("%v: read %+v, %v", size, got, err)
			}
		}
	}
}

func TestStampSurvivesOtherImageTypes(t *testing.T) {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, capturetest.Picture(640, 360, 5, clock), &jpeg.Options{Quality: 30}); err != nil {
		t.Fatal(err)
	}
	img, err := jpeg.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	rgba := image.NewRGBA(image.Rect(0, 0, 640, 360))
	for y := range 360 {
		for x := range 640 {
			rgba.Set(x, y, img.At(x, y))
		}
	}
	if got, err := capturetest.ReadStamp(rgba); err != nil || got.Counter != 5 {
		t.Errorf("read %+v, %v", got, err)
	}
}

func TestDamagedStampIsRefused(t *testing.T) {
	p := capturetest.Picture(640, 360, 5, clock)
	for y := 16; y < 32; y++ {
		for x := 64; x < 80; x++ {
			p.Y[y*p.YStride+x] ^= 0xff
		}
	}
	if _, err := capturetest.ReadStamp(p); !errors.Is(err, capturetest.ErrNoStamp) {
		t.Errorf("one wrong cell: %v", err)
	}
	if _, err := capturetest.ReadStamp(image.NewGray(image.Rect(0, 0, 8, 8))); !errors.Is(err, capturetest.ErrNoStamp) {
		t.Error("tiny picture accepted")
	}
}

// TestStampSurvivesVP8 encodes 20 s at 400 kbit/s and lets ffmpeg, which shares no code with the encoder,
// decode it.
func TestStampSurvivesVP8(t *testing.T) {
	const w, h, fps, frames = 640, 360, 15, 300
	units := encodePictures(t, w, h, fps, frames, 400_000)
	var ivf bytes.Buffer
	ivf.WriteString("DKIF\x00\x00\x20\x00VP80")
	le := binary.LittleEndian
	ivf.Write(le.AppendUint16(le.AppendUint16(nil, w), h))
	ivf.Write(le.AppendUint32(le.AppendUint32(nil, 1000), 1))
	ivf.Write(le.AppendUint64(nil, uint64(len(units))))
	for _, u := range units {
		ivf.Write(le.AppendUint32(nil, uint32(len(u.Payload))))
		ivf.Write(le.AppendUint64(nil, uint64(u.CaptureTime/1e6)))
		ivf.Write(u.Payload)
	}
	raw := decode(t, "in.ivf", ivf.Bytes(), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuv420p")
	const size = w * h * 3 / 2
	readable, last := 0, int64(-1)
	for i := 0; (i+1)*size <= len(raw); i++ {
		s, err := capturetest.ReadStamp(&image.YCbCr{Y: raw[i*size:][:w*h], YStride: w,
			SubsampleRatio: image.YCbCrSubsampleRatio420, Rect: image.Rect(0, 0, w, h)})
		if err != nil {
			continue
		}
		if int64(s.Counter) <= last || s.Clock.Sub(clock) != time.Duration(s.Counter)*time.Second/fps/1e6*1e6 {
			t.Errorf("frame %d: read %+v after %d", i, s, last)
		}
		last = int64(s.Counter)
		readable++
	}
	if len(raw)/size != len(units) {
		t.Errorf("%d units decoded to %d frames", len(units), len(raw)/size)
	}
	if len(units) < frames*95/100 || readable < len(units)*95/100 {
		t.Errorf("%d pictures, %d units, %d readable stamps", frames, len(units), readable)
	}
	t.Logf("%d pictures, %d units, %d readable stamps", frames, len(units), readable)
}

func encodePictures(t *testing.T, w, h, fps, frames, rate int) (units []mediacap.Unit) {
	t.Helper()
	n := 0
	source := video.ReaderFunc(func() (image.Image, func(), error) {
		if n == frames {
			return nil, func() {}, io.EOF
		}
		at := time.Duration(n) * time.Second / time.Duration(fps) / 1e6 * 1e6
		p := &frame.Picture{YCbCr: *capturetest.Picture(w, h, uint32(n), clock.Add(at)), Captured: mediacap.Time(time.Hour + at)}
		n++
		return p, func() {}, nil
	})
	r, err := (&encode.VP8{BitRate: rate, FrameRate: float32(fps)}).BuildVideoEncoder(source, prop.Media{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return readAll(t, r)
}

func readAll(t *testing.T, r codec.ReadCloser) (units []mediacap.Unit) {
	t.Helper()
	for {
		b, _, err := r.Read()
		if err == io.EOF {
			return units
		}
		if err != nil {
			t.Fatal(err)
		}
		u := r.Controller().(encode.Controller).Describe()
		u.Payload = slices.Clone(b)
		units = append(units, u)
	}
}

func decode(t *testing.T, name string, in []byte, args ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, in, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ffmpeg", append([]string{"-v", "error", "-i", file}, append(args, "-")...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("ffmpeg: %v: %s", err, stderr.Bytes())
	}
	return out
}

func TestVoiceIsAFunctionOfItsOffset(t *testing.T) {
	const from = 1_790_000_000 * capturetest.SampleRate
	whole := capturetest.Voice(from, 10*capturetest.SampleRate)
	for _, cut := range []int{1, 4800, 9599, 9600, 48_001, 300_000} {
		if !slices.Equal(whole[cut:], capturetest.Voice(from+int64(cut), len(whole)-cut)) {
			t.Errorf("from sample %d on it is another sound", cut)
		}
	}
	silent, peak := 0, 0
	for _, v := range whole {
		if v == 0 {
			silent++
		}
		peak = max(peak, int(v), -int(v))
	}
	if share := float64(silent) / float64(len(whole)); share < 0.15 || share > 0.6 {
		t.Errorf("%.0f %% silence", share*100)
	}
	if peak < 3000 || peak > 30000 {
		t.Errorf("peak %d", peak)
	}
	// A second of it must not be mistaken for another one.
	for lag := 2400; lag < 8*capturetest.SampleRate; lag += 1200 {
		if r := correlation(whole[:capturetest.SampleRate], whole[lag:lag+capturetest.SampleRate]); math.Abs(r) > 0.6 {
			t.Errorf("correlates with itself after %d samples: %.2f", lag, r)
		}
	}
}

func TestOffsetAt(t *testing.T) {
	if got := capturetest.OffsetAt(time.UnixMilli(1_790_000_000_123)); got != 1_790_000_000_123*48 {
		t.Errorf("offset %d", got)
	}
}

func correlation(a, b []int16) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab += x * y
		aa += x * x
		bb += y * y
	}
	if aa == 0 || bb == 0 {
		return 0
	}
	return ab / math.Sqrt(aa*bb)
}

// TestVoiceSurvivesOpus compares what ffmpeg decodes with the generated sound.
func TestVoiceSurvivesOpus(t *testing.T) {
	const seconds, from = 6, 1_790_000_000 * capturetest.SampleRate
	want := capturetest.Voice(from, seconds*capturetest.SampleRate)
	n := 0
	source := audio.ReaderFunc(func() (wave.Audio, func(), error) {
		if n == len(want) {
			return nil, func() {}, io.EOF
		}
		s := &frame.Sound{Captured: mediacap.Time(n) * 1e9 / 48000}
		s.Data, s.Size = want[n:n+480], wave.ChunkInfo{Len: 480, Channels: 1, SamplingRate: 48000}
		n += 480
		return s, func() {}, nil
	})
	r, err := (&encode.OpusVoice{}).BuildAudioEncoder(source, prop.Media{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var ogg bytes.Buffer
	o, err := oggwriter.NewWith(&ogg, 48000, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range readAll(t, r) {
		p := &rtp.Packet{Header: rtp.Header{Timestamp: uint32(i) * 960, SequenceNumber: uint16(i)}, Payload: u.Payload}
		if err := o.WriteRTP(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	raw := decode(t, "in.ogg", ogg.Bytes(), "-f", "s16le", "-ar", "48000", "-ac", "1")
	got := make([]int16, len(raw)/2)
	for i := range got {
		got[i] = int16(binary.LittleEndian.Uint16(raw[2*i:]))
	}
	best, at := 0.0, 0
	length := 4 * capturetest.SampleRate
	if len(got) < length {
		t.Fatalf("%d samples decoded", len(got))
	}
	for lag := 3000; lag < 4000; lag++ { // the decoder skips the 3840 samples that oggwriter announces, less Opus' delay
		if c := correlation(got[:length], want[lag:lag+length]); c > best {
			best, at = c, lag
		}
	}
	if best < 0.7 {
		t.Errorf("correlation %.3f at lag %d", best, at)
	}
	t.Logf("correlation %.3f at lag %d samples, %d of %d samples decoded", best, at, len(got), len(want))
}

func TestDriversThroughGetUserMedia(t *testing.T) {
	d, err := capturetest.Register(320, 180, 30)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Unregister()
	stream, err := mediadevices.GetUserMedia(mediadevices.MediaStreamConstraints{
		Video: func(c *mediadevices.MediaTrackConstraints) { c.DeviceID = prop.StringExact(d.Camera) },
		Audio: func(c *mediadevices.MediaTrackConstraints) { c.DeviceID = prop.StringExact(d.Microphone) },
	})
	if err != nil {
		t.Fatal(err)
	}
	v := stream.GetVideoTracks()[0].(*mediadevices.VideoTrack)
	pictures := v.NewReader(false)
	last := -1
	for range 5 {
		img, release, err := pictures.Read()
		if err != nil {
			t.Fatal(err)
		}
		p := img.(*frame.Picture)
		s, err := capturetest.ReadStamp(&p.YCbCr)
		if err != nil || int(s.Counter) <= last {
			t.Fatalf("counter %d after %d: %v", s.Counter, last, err)
		}
		if d := mediacap.Now().Sub(p.Captured); d < 0 || d > time.Second {
			t.Errorf("capture time is %v ago", d)
		}
		last = int(s.Counter)
		release()
	}
	a := stream.GetAudioTracks()[0].(*mediadevices.AudioTrack)
	sounds := a.NewReader(false)
	var before mediacap.Time
	for i := range 5 {
		chunk, release, err := sounds.Read()
		if err != nil {
			t.Fatal(err)
		}
		s := chunk.(*frame.Sound)
		if i > 0 && s.Captured.Sub(before) != 20*time.Millisecond {
			t.Errorf("chunk %d is %v after its predecessor", i, s.Captured.Sub(before))
		}
		before = s.Captured
		release()
	}
	started := time.Now()
	for _, track := range stream.GetTracks() {
		if err := track.Close(); err != nil {
			t.Error(err)
		}
	}
	for { // what was captured before Close is still delivered, then the end
		if _, _, err := sounds.Read(); err == io.EOF {
			break
		}
	}
	if d := time.Since(started); d > 100*time.Millisecond {
		t.Errorf("closing took %v", d)
	}
}

func TestRegisterRefusesImpossiblePictures(t *testing.T) {
	for _, c := range []struct {
		w, h int
		rate float32
	}{{0, 0, 15}, {100, 100, 15}, {640, 10, 15}, {640, 360, 0}, {640, 360, 1000}, {10000, 5000, 15}} {
		if _, err := capturetest.Register(c.w, c.h, c.rate); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}
