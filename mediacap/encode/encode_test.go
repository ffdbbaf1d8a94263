package encode

import (
	"image"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"

	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/frame"
)

// mediadevices looks for these by assertion; a wrong signature would go unnoticed.
var (
	_ codec.VideoEncoderBuilder = (*VP8)(nil)
	_ codec.VideoEncoderBuilder = (*H264)(nil)
	_ codec.AudioEncoderBuilder = (*OpusVoice)(nil)
	_ codec.KeyFrameController  = (*stream)(nil)
	_ codec.BitRateController   = (*stream)(nil)
	_ codec.BitRateController   = (*opusEncoder)(nil)
	_ Controller                = (*stream)(nil)
	_ Controller                = (*opusEncoder)(nil)
	_ Chooser                   = (*stream)(nil)
)

// scene makes pictures of moving, textured content that a rate control has to work for.
type scene struct {
	w, h    int
	at      mediacap.Time
	step    time.Duration
	picture frame.Picture
	n       int
}

func newScene(w, h, fps int) *scene {
	return &scene{w: w, h: h, at: mediacap.Time(time.Hour), step: time.Second / time.Duration(fps),
		picture: frame.Picture{YCbCr: *image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420)}}
}

// Read draws the next picture. The race detector would make minutes of it.
//
//go:norace
func (s *scene) Read() (image.Image, func(), error) {
	p := &s.picture
	cx, seed := s.w/2+int(float64(s.w)/4*math.Sin(float64(s.n)/15)), uint32(s.n)*2654435761+1
	for y := range s.h {
		for x := range s.w {
			v := 80 + x*60/s.w + y*30/s.h
			if d := (x-cx)*(x-cx) + (y-s.h/2)*(y-s.h/2); d < s.h*s.h/9 {
				v = 110 + 50*((x/6+y/6+s.n/3)%2)
			}
			seed = seed*1664525 + 1013904223
			p.Y[y*p.YStride+x] = uint8(v + int(seed>>29))
		}
	}
	p.Captured = s.at
	s.at = s.at.Add(s.step)
	s.n++
	return p, func() {}, nil
}

func open(t testing.TB, r video.Reader, rate, fps int) (codec.ReadCloser, Controller) {
	t.Helper()
	e, err := (&VP8{BitRate: rate, FrameRate: float32(fps)}).BuildVideoEncoder(r, prop.Media{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, e.Controller().(Controller)
}

func next(t testing.TB, e codec.ReadCloser) mediacap.Unit {
	t.Helper()
	b, release, err := e.Read()
	if err != nil {
		t.Fatal(err)
	}
	release()
	u := e.Controller().(Controller).Describe()
	u.Payload = b
	return u
}

// TestVP8Rate holds the rate control to what mediadevices' own misses by a factor of three: the rate within
// the first seconds, no giant pictures, and a new rate in force soon.
func TestVP8Rate(t *testing.T) {
	const rate, fps = 800_000, 30
	s := newScene(640, 360, fps)
	e, control := open(t, s, rate, fps)
	measure := func(seconds int) (bitsPerSecond, largest int) {
		end, sum := s.at.Add(time.Duration(seconds)*time.Second), 0
		for s.at < end {
			u := next(t, e)
			sum += len(u.Payload)
			if !u.KeyFrame {
				largest = max(largest, len(u.Payload))
			}
		}
		return sum * 8 / seconds, largest
	}
	got, largest := measure(4)
	t.Logf("first 4 s: %d bit/s, largest inter frame %d bytes", got, largest)
	if got > rate*125/100 || got < rate*60/100 {
		t.Errorf("first 4 s: %d bit/s", got)
	}
	if mean := rate / 8 / fps; largest > 3*mean {
		t.Errorf("largest inter frame is %d bytes, mean %d", largest, mean)
	}
	if err := control.SetBitRate(rate / 2); err != nil {
		t.Fatal(err)
	}
	measure(1)
	if got, _ := measure(4); got > rate/2*110/100 || got < rate/2*80/100 {
		t.Errorf("after halving: %d bit/s", got)
	}
}

func TestVP8KeyFrames(t *testing.T) {
	const fps = 10
	s := newScene(160, 96, fps)
	e, control := open(t, s, 300_000, fps)
	var keys []int
	for i := range 70 * fps {
		if i == 25 || i == 26 { // two requests, one of them inside KeyFrameGap of the other's key frame
			if err := control.ForceKeyFrame(); err != nil {
				t.Fatal(err)
			}
		}
		u := next(t, e)
		if u.KeyFrame != (u.Payload[0]&1 == 0) { // RFC 6386 section 9.1
			t.Fatalf("picture %d: described as key frame %v", i, u.KeyFrame)
		}
		if u.Seq != uint32(i) || u.CaptureTime != mediacap.Time(time.Hour).Add(time.Duration(i)*s.step) || u.Width != 160 || u.Height != 96 {
			t.Fatalf("picture %d: %+v", i, u)
		}
		if u.KeyFrame {
			keys = append(keys, i)
		}
	}
	if want := []int{0, 25, 27, 27 + 30*fps, 27 + 60*fps}; !slices.Equal(keys, want) {
		t.Errorf("key frames at %v, want %v", keys, want)
	}
}

func TestVP8RequestsDoNotWaitForAStalledCamera(t *testing.T) {
	s := newScene(160, 96, 30)
	stall := make(chan struct{})
	n := 0
	e, control := open(t, video.ReaderFunc(func() (image.Image, func(), error) {
		if n++; n > 1 {
			<-stall
			return nil, func() {}, io.EOF
		}
		return s.Read()
	}), 300_000, 30)
	next(t, e)
	ended := make(chan error)
	go func() {
		_, _, err := e.Read()
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond)
	begin := time.Now()
	for _, err := range []error{control.ForceKeyFrame(), control.SetBitRate(100_000), e.Close()} {
		if err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(begin); d > 50*time.Millisecond {
		t.Errorf("requests waited %v", d)
	}
	close(stall)
	if err := <-ended; err != io.EOF {
		t.Errorf("read after close: %v", err)
	}
	if _, _, err := e.Read(); err != io.EOF {
		t.Errorf("read after close: %v", err)
	}
}

// TestVP8ChangesOfSize would grow by gigabytes if the old codec were not destroyed.
func TestVP8ChangesOfSize(t *testing.T) {
	small, large := newScene(160, 96, 30), newScene(640, 360, 30)
	n, at := 0, mediacap.Time(time.Hour)
	e, _ := open(t, video.ReaderFunc(func() (image.Image, func(), error) {
		s := []*scene{small, large}[n%2]
		n++
		at = at.Add(time.Second / 30)
		s.at = at
		return s.Read()
	}), 500_000, 30)
	for range 50 { // until malloc's arenas have their size
		next(t, e)
	}
	before := residentBytes(t)
	for i := range 200 {
		u := next(t, e)
		if !u.KeyFrame || int(u.Width) != []int{160, 640}[i%2] {
			t.Fatalf("change %d: %+v", i, u)
		}
	}
	grown := residentBytes(t) - before
	if grown > 40<<20 { // codecs that are not destroyed cost megabytes each
		t.Errorf("200 changes of size cost %d MiB", grown>>20)
	}
	t.Logf("200 changes of size cost %d KiB", grown>>10)
}

func residentBytes(t *testing.T) int {
	t.Helper()
	runtime.GC()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

func TestVP8TakesOtherPictures(t *testing.T) {
	for name, img := range map[string]image.Image{
		"4:2:2": image.NewYCbCr(image.Rect(0, 0, 64, 48), image.YCbCrSubsampleRatio422),
		"4:4:4": image.NewYCbCr(image.Rect(0, 0, 64, 48), image.YCbCrSubsampleRatio444),
		"RGBA":  image.NewRGBA(image.Rect(0, 0, 64, 48)),
		"odd":   image.NewYCbCr(image.Rect(0, 0, 65, 49), image.YCbCrSubsampleRatio420),
	} {
		e, _ := open(t, video.ReaderFunc(func() (image.Image, func(), error) { return img, func() {}, nil }), 300_000, 30)
		before := mediacap.Now()
		if u := next(t, e); !u.KeyFrame || u.CaptureTime < before || u.CaptureTime > mediacap.Now() {
			t.Errorf("%s: %+v", name, u)
		}
	}
	for name, img := range map[string]image.Image{
		"tiny":  image.NewYCbCr(image.Rect(0, 0, 8, 8), image.YCbCrSubsampleRatio420),
		"short": &image.YCbCr{Y: make([]byte, 64), Cb: make([]byte, 64), Cr: make([]byte, 64), YStride: 64, CStride: 32, Rect: image.Rect(0, 0, 64, 48), SubsampleRatio: image.YCbCrSubsampleRatio420},
	} {
		e, _ := open(t, video.ReaderFunc(func() (image.Image, func(), error) { return img, func() {}, nil }), 300_000, 30)
		if _, _, err := e.Read(); err == nil {
			t.Errorf("%s picture was encoded", name)
		}
	}
}

func TestVP8DoesNotAllocatePerPicture(t *testing.T) {
	s := newScene(160, 96, 30)
	e, _ := open(t, s, 300_000, 30)
	for range 60 {
		next(t, e)
	}
	if n := testing.AllocsPerRun(100, func() { next(t, e) }); n > 0 {
		t.Errorf("%v allocations per picture", n)
	}
}

// tone delivers chunks of a length that does not divide 20 ms.
type tone struct {
	n, chunk int
	start    mediacap.Time
	jitter   func(n int) time.Duration
	silent   bool
	sound    frame.Sound
}

func (s *tone) Read() (wave.Audio, func(), error) {
	s.sound.Size = wave.ChunkInfo{Len: s.chunk, Channels: 1, SamplingRate: sampleRate}
	s.sound.Data = s.sound.Data[:0]
	s.sound.Captured = s.start.Add(samplesTime(s.n))
	if s.jitter != nil {
		s.sound.Captured = s.sound.Captured.Add(s.jitter(s.n))
	}
	for range s.chunk {
		v := 8000 * math.Sin(2*math.Pi*440*float64(s.n)/sampleRate)
		if s.silent {
			v = 0
		}
		s.sound.Data = append(s.sound.Data, int16(v))
		s.n++
	}
	return &s.sound, func() {}, nil
}

func openOpus(t testing.TB, r audio.Reader) codec.ReadCloser {
	t.Helper()
	e, err := (&OpusVoice{}).BuildAudioEncoder(r, prop.Media{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// TestOpusTellsNothingBySize checks that speech and silence make packets of one size and one TOC.
func TestOpusTellsNothingBySize(t *testing.T) {
	source := &tone{chunk: 441, start: 5e9}
	e := openOpus(t, source)
	seen := map[[2]int]int{}
	for i := range 500 {
		source.silent = i/50%2 == 1
		u := next(t, e)
		seen[[2]int{len(u.Payload), int(u.Payload[0])}]++
		if want := source.start.Add(time.Duration(i) * frameTime); u.Seq != uint32(i) || u.CaptureTime != want {
			t.Fatalf("packet %d: %+v, want time %v", i, u, want)
		}
	}
	if len(seen) != 1 || len(next(t, e).Payload) != 80 {
		t.Errorf("(size, TOC): count %v", seen)
	}
	toc := next(t, e).Payload[0]
	if toc != mediacap.OpusTOC {
		t.Errorf("TOC %#02x, the daemon seals only %#02x", toc, mediacap.OpusTOC)
	}
	if err := e.Controller().(Controller).SetBitRate(24_000); err != nil {
		t.Fatal(err)
	}
	if n := len(next(t, e).Payload); n != 60 {
		t.Errorf("%d bytes after the change to 24 kbit/s", n)
	}
}

func TestOpusTimeFollowsTheClockAndFillsGaps(t *testing.T) {
	lostAt, lost := 5*sampleRate, 300*time.Millisecond
	source := &tone{chunk: 480, start: 5e9, jitter: func(n int) time.Duration {
		j := time.Duration(n%7-3) * time.Millisecond
		j += time.Duration(n) * time.Second / sampleRate / 5000 // a clock that is 200 ppm fast
		if n >= lostAt {
			j += lost
		}
		return j
	}}
	e := openOpus(t, source)
	last := mediacap.Time(0)
	for i := range 1000 {
		u := next(t, e)
		if d := u.CaptureTime.Sub(last); i > 0 && (d < frameTime*9/10 || d > frameTime*11/10) {
			t.Fatalf("packet %d is %v after its predecessor", i, d)
		}
		last = u.CaptureTime
	}
	// 20 s of packets hold 300 ms of silence, so 19.7 s of samples were read.
	if read := samplesTime(source.n); (read - 19700*time.Millisecond).Abs() > 50*time.Millisecond {
		t.Errorf("%v of samples made 20 s of packets", read)
	}
	end := source.start.Add(samplesTime(source.n)).Add(source.jitter(source.n))
	if d := end.Sub(last.Add(frameTime)); d.Abs() > 20*time.Millisecond {
		t.Errorf("the packets' time is %v off", d)
	}
}

func TestOpusRefusesOtherRates(t *testing.T) {
	e := openOpus(t, audio.ReaderFunc(func() (wave.Audio, func(), error) {
		return wave.NewInt16Interleaved(wave.ChunkInfo{Len: 441, Channels: 1, SamplingRate: 44100}), func() {}, nil
	}))
	if _, _, err := e.Read(); err == nil {
		t.Error("44.1 kHz was encoded as 48 kHz")
	}
	if _, err := (&OpusVoice{BitRate: 1}).BuildAudioEncoder(nil, prop.Media{}); err == nil {
		t.Error("1 bit/s was accepted")
	}
}

func TestOpusDoesNotAllocatePerPacket(t *testing.T) {
	e := openOpus(t, &tone{chunk: 960, start: 5e9})
	for range 10 {
		next(t, e)
	}
	if n := testing.AllocsPerRun(100, func() { next(t, e) }); n > 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func TestStereoAndFloatAreMixed(t *testing.T) {
	i16 := wave.NewInt16Interleaved(wave.ChunkInfo{Len: 2, Channels: 2, SamplingRate: sampleRate})
	copy(i16.Data, []int16{100, 300, -32768, -32768})
	f32 := wave.NewFloat32Interleaved(wave.ChunkInfo{Len: 2, Channels: 1, SamplingRate: sampleRate})
	copy(f32.Data, []float32{0.5, 2})
	got, err := appendMono(nil, i16)
	if err == nil {
		got, err = appendMono(got, f32)
	}
	if want := []int16{200, -32768, 16384, 32767}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestMeter(t *testing.T) {
	var levels []mediacap.Level
	source := &tone{chunk: 960, start: 5e9}
	r := Meter(func(l mediacap.Level) { levels = append(levels, l) })(source)
	for i := range 10 {
		source.silent = i >= 5
		if _, _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}
	if len(levels) != 2 {
		t.Fatalf("%d levels in 200 ms", len(levels))
	}
	// A sine of amplitude 8000/32768: peak -12.25 dBFS, RMS 3.01 dB lower.
	if math.Abs(float64(levels[0].Peak)+12.25) > 0.05 || math.Abs(float64(levels[0].RMS)+15.26) > 0.05 {
		t.Errorf("tone: %+v", levels[0])
	}
	if levels[1].RMS != mediacap.MinLevel || levels[1].Peak != mediacap.MinLevel {
		t.Errorf("silence: %+v", levels[1])
	}
}

func BenchmarkVP8(b *testing.B) {
	for _, size := range [][2]int{{640, 360}, {1280, 720}} {
		b.Run(strconv.Itoa(size[1]), func(b *testing.B) {
			s := newScene(size[0], size[1], 30)
			if _, _, err := s.Read(); err != nil {
				b.Fatal(err)
			}
			pictures := make([]*frame.Picture, 30)
			for i := range pictures {
				s.Read()
				p := s.picture
				p.Y = slices.Clone(p.Y)
				pictures[i] = &p
			}
			n := 0
			e, _ := open(b, video.ReaderFunc(func() (image.Image, func(), error) {
				p := pictures[n%len(pictures)]
				n++
				p.Captured = mediacap.Time(time.Hour) + mediacap.Time(n)*mediacap.Time(time.Second/30)
				return p, func() {}, nil
			}), 1_000_000, 30)
			b.ReportAllocs()
			for b.Loop() {
				next(b, e)
			}
		})
	}
}

func BenchmarkOpus(b *testing.B) {
	e := openOpus(b, &tone{chunk: 960, start: 5e9})
	b.ReportAllocs()
	for b.Loop() {
		next(b, e)
	}
}
