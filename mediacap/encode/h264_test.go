package encode

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"io"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"

	"github.com/alcove-room/alcove/daemon/e2ee"
	"github.com/alcove-room/alcove/mediacap"
	"github.com/alcove-room/alcove/mediacap/encode/vaapi"
	"github.com/alcove-room/alcove/mediacap/encode/vaapi/vaapitest"
)

func TestMain(m *testing.M) { os.Exit(vaapitest.Main(m, "vaapi/vaapitest/testdata")) }

// patient is VA-API without a limit for a picture: what the driver does here is done by a processor that others use too.
func patient() Backend {
	return Backend{Name: "vaapi", Codec: mediacap.H264, Open: func(f Format) (Encoder, error) {
		e, err := vaapi.Open(vaapi.Config{Node: vaapitest.Node, EntryPoint: vaapi.EncSlice, Width: f.Width, Height: f.Height,
			FrameRate: f.FrameRate, BitRate: f.BitRate, Level: Level(f), Limit: 20 * time.Second})
		if err != nil {
			return nil, err
		}
		return newH264(e), nil
	}}
}

func openH264Stream(t testing.TB, r video.Reader, rate, fps int, backends ...Backend) (codec.ReadCloser, Controller) {
	t.Helper()
	e, err := (&H264{BitRate: rate, FrameRate: float32(fps), Backends: backends}).BuildVideoEncoder(r, prop.Media{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, e.Controller().(Controller)
}

// way is one encoder that a test is to be run with.
type way struct {
	name    string
	headers string // FAKE_VA_HEADERS
	backend func() Backend
}

var h264Ways = []way{
	{"openh264", "", OpenH264},
	{"vaapi, driver writes headers", "driver", patient},
	{"vaapi, we write headers", "app", patient},
}

func (w way) on(t *testing.T) {
	if w.headers != "" {
		log := vaapitest.NewLog(t)
		t.Setenv("FAKE_VA_HEADERS", w.headers)
		t.Cleanup(log.Clean)
	}
}

// ffmpeg runs FFmpeg, which knows nothing of us, on in.
func ffmpeg(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-nostdin", "-loglevel", "error"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("ffmpeg %v: %v\n%s", args, err, &errs)
	}
	return out.Bytes()
}

// film is an encoded sequence in a form that FFmpeg reads, with what was encoded.
type film struct {
	codec mediacap.Codec
	w, h  int
	units [][]byte
	keys  []int
	raw   bytes.Buffer
	bits  []int
}

func (f *film) add(u mediacap.Unit, raw *image.YCbCr) {
	f.codec, f.w, f.h = u.Codec, int(u.Width), int(u.Height)
	if u.KeyFrame {
		f.keys = append(f.keys, len(f.units))
	}
	f.units = append(f.units, bytes.Clone(u.Payload))
	f.bits = append(f.bits, 8*len(u.Payload))
	f.raw.Write(raw.Y)
	f.raw.Write(raw.Cb)
	f.raw.Write(raw.Cr)
}

func (f *film) decode(t testing.TB) []byte {
	t.Helper()
	in, format := bytes.Join(f.units, nil), "h264"
	if f.codec == mediacap.VP8 {
		in, format = f.ivf(), "ivf"
	}
	return ffmpeg(t, in, "-xerror", "-f", format, "-i", "pipe:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1")
}

func (f *film) ivf() []byte {
	var b bytes.Buffer
	b.WriteString("DKIF\x00\x00\x20\x00VP80")
	le := func(n int, v uint64) {
		for i := range n {
			b.WriteByte(byte(v >> (8 * i)))
		}
	}
	le(2, uint64(f.w))
	le(2, uint64(f.h))
	le(4, 30)
	le(4, 1)
	le(8, uint64(len(f.units)))
	for i, u := range f.units {
		le(4, uint64(len(u)))
		le(8, uint64(i))
		b.Write(u)
	}
	return b.Bytes()
}

// rates returns the bits per second of each window of two seconds behind the first, and the largest inter frame against
// the mean.
func (f *film) rates(fps int) (windows []int, peak float64) {
	sum, mean, largest := 0, 0, 0
	for i, b := range f.bits {
		sum += b
		mean += b
		if i >= fps && i%fps == fps-1 && i+1 >= 3*fps {
			two := 0
			for _, v := range f.bits[i+1-2*fps : i+1] {
				two += v
			}
			windows = append(windows, two/2)
		}
		key := false
		for _, k := range f.keys {
			key = key || k == i
		}
		if !key {
			largest = max(largest, b)
		}
	}
	return windows, float64(largest) * float64(len(f.bits)) / float64(mean)
}

// psnr is in dB. The race detector would make a minute of it.
//
//go:norace
func psnr(a, b []byte) float64 {
	sum := 0.0
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return 10 * math.Log10(255*255*float64(len(a))/max(sum, 1))
}

// TestQuality has FFmpeg decode every encoder's output: rate, largest pictures, and how near it is to what was encoded.
func TestQuality(t *testing.T) {
	const rate, fps, seconds = 800_000, 30, 7
	for _, w := range append([]way{{"libvpx", "", Libvpx}}, h264Ways...) {
		t.Run(w.name, func(t *testing.T) {
			w.on(t)
			s := newScene(640, 360, fps)
			e, err := newStream(s, w.backend().Codec, rate, fps, []Backend{w.backend()})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			var f film
			for range seconds * fps {
				u := next(t, e)
				f.add(u, &s.picture.YCbCr)
			}
			decoded := f.decode(t)
			if len(decoded) != f.raw.Len() {
				t.Fatalf("%d pictures decoded, %d encoded", len(decoded)/(640*360*3/2), len(f.units))
			}
			quality := psnr(decoded, f.raw.Bytes())
			windows, peak := f.rates(fps)
			t.Logf("%s: PSNR %.2f dB; bit/s over 2 s: %v of %d; key frame %d bytes; largest inter frame %.2f of the mean",
				e.Library(), quality, windows, rate, len(f.units[0]), peak)
			if quality < 30 {
				t.Errorf("PSNR %.2f dB", quality)
			}
			for _, got := range windows {
				if got < rate*90/100 || got > rate*110/100 {
					t.Errorf("%d bit/s over 2 s, %d asked for", got, rate)
				}
			}
			if peak > 1.2*1.6 { // 1.6 is what FFmpeg's constant rate has on such a sequence
				t.Errorf("largest inter frame is %.2f of the mean", peak)
			}
			if len(f.keys) != 1 {
				t.Errorf("key frames at %v", f.keys)
			}
		})
	}
}

// TestRateAndKeyFrames changes both on the way; each is in force within two pictures.
func TestRateAndKeyFrames(t *testing.T) {
	const fps = 30
	for _, w := range h264Ways {
		t.Run(w.name, func(t *testing.T) {
			w.on(t)
			s := newScene(320, 180, fps)
			e, control := openH264Stream(t, s, 600_000, fps, w.backend())
			var keys []int
			sizes := make([]int, 8*fps)
			for i := range sizes {
				switch i {
				case 45, 47: // the second one within KeyFrameGap
					control.ForceKeyFrame()
				case 3 * fps:
					control.SetBitRate(200_000)
				}
				u := next(t, e)
				if u.KeyFrame {
					keys = append(keys, i)
				}
				sizes[i] = len(u.Payload)
			}
			if fmt.Sprint(keys) != "[0 45 49]" {
				t.Errorf("key frames at %v", keys)
			}
			sum := 0
			for _, n := range sizes[5*fps:] {
				sum += 8 * n
			}
			if got := sum / 3; got < 180_000 || got > 220_000 {
				t.Errorf("%d bit/s after 200,000 were asked for", got)
			}
		})
	}
}

func sealer(t *testing.T, w, h int) *e2ee.Sender {
	t.Helper()
	key, err := e2ee.NewEndpoint().SendKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	s := e2ee.NewH264Sender(e2ee.Size{Width: w, Height: h})
	if err := s.SetKey(1, key); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSealed has the daemon's sealing, the strictest reader of the stream, take every unit.
func TestSealed(t *testing.T) {
	for _, w := range h264Ways {
		for _, size := range [][2]int{{640, 360}, {192, 108}} {
			t.Run(fmt.Sprintf("%s/%d", w.name, size[0]), func(t *testing.T) {
				w.on(t)
				s := newScene(size[0], size[1], 30)
				e, control := openH264Stream(t, s, 400_000, 30, w.backend())
				seal := sealer(t, size[0], size[1])
				keys := 0
				for i := range 300 {
					if i%37 == 0 {
						control.ForceKeyFrame()
					}
					if i%23 == 0 {
						control.SetBitRate(100_000 + i*5000)
					}
					u := next(t, e)
					if u.KeyFrame {
						keys++
					}
					if _, err := seal.Encrypt(nil, u.Payload); err != nil {
						t.Fatalf("picture %d: %v", i, err)
					}
				}
				if keys != 9 {
					t.Errorf("%d key frames", keys)
				}
			})
		}
	}
}

// TestSameParameterSets: one H.264 encoder can take over from another without new parameter sets.
func TestSameParameterSets(t *testing.T) {
	for _, f := range []Format{{320, 180, 15, 200_000}, {640, 360, 30, 20_000_000}, {1280, 720, 30, 60_000}, {1920, 1080, 30, 4_000_000}, {854, 482, 60, 1_000_000}} {
		var first string
		for _, w := range h264Ways {
			t.Run(fmt.Sprintf("%dx%d/%s", f.Width, f.Height, w.name), func(t *testing.T) {
				w.on(t)
				e, err := w.backend().Open(f)
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				img := image.NewYCbCr(image.Rect(0, 0, f.Width, f.Height), image.YCbCrSubsampleRatio420)
				unit, _, err := e.Encode(img, 0, true)
				if err != nil {
					t.Fatal(err)
				}
				// What the daemon makes of the parameter sets is what goes out: seal, and read the clear part.
				sealed, err := sealer(t, f.Width, f.Height).Encrypt(nil, unit)
				if err != nil {
					t.Fatal(err)
				}
				clear, _, _ := bytes.Cut(sealed, []byte{0, 0, 0, 1, 0x65})
				head := fmt.Sprintf("%x, slice %02x", clear, sealed[len(clear)+5])
				if first == "" {
					first = head
				}
				if head != first {
					t.Errorf("%s\nwant %s", head, first)
				}
			})
		}
	}
}

// TestReplacement kills the hardware in the middle of a stream in every way there is. The stream goes on with the same
// picture, as a key frame, on the same payload type, and the daemon's sealing takes it with the same parameter sets.
func TestReplacement(t *testing.T) {
	for _, headers := range []string{"driver", "app"} {
		for _, c := range []struct{ name, env, sync string }{
			{"error", "FAKE_VA_FAIL_AT", "yes"},
			{"hang with a limit", "FAKE_VA_HANG_AT", "yes"},
			{"hang without", "FAKE_VA_HANG_AT", "no"},
			{"damage", "FAKE_VA_DAMAGE_AT", "yes"},
		} {
			t.Run(headers+"/"+c.name, func(t *testing.T) {
				log := vaapitest.NewLog(t)
				t.Setenv("FAKE_VA_HEADERS", headers)
				t.Setenv("FAKE_VA_SYNC_BUFFER", c.sync)
				t.Setenv(c.env, "30") // behind the probe's
				t.Setenv("FAKE_VA_HANG_MS", "1000")
				s := newScene(320, 180, 30)
				e, control := openH264Stream(t, s, 400_000, 30, append(VAAPI(vaapitest.Node)[:1], OpenH264())...)
				seal := sealer(t, 320, 180)
				var f film
				var gap time.Duration
				for i := range 60 {
					began := time.Now()
					u := next(t, e)
					if u.Seq != uint32(i) || u.KeyFrame != (i == 0 || i == 30) || u.CaptureTime != mediacap.Time(time.Hour).Add(time.Duration(i)*s.step) {
						t.Fatalf("picture %d: sequence %d at %v, key frame %v (%s)", i, u.Seq, u.CaptureTime, u.KeyFrame, control.(Chooser).Choice().Reason())
					}
					if i == 30 {
						gap = time.Since(began)
					}
					want := "VA-API"
					if i >= 30 {
						want = "openh264"
					}
					if !strings.Contains(control.Library(), want) {
						t.Fatalf("picture %d by %s", i, control.Library())
					}
					if _, err := seal.Encrypt(nil, u.Payload); err != nil {
						t.Fatalf("picture %d: %v", i, err)
					}
					f.add(u, &s.picture.YCbCr)
				}
				choice := control.(Chooser).Choice()
				t.Logf("replaced within %v: %s, since %s", gap, choice.Name, choice.Reason())
				if gap > ReplaceLimit+machine {
					t.Errorf("replaced within %v", gap)
				}
				if choice.Backend != "openh264" || len(choice.Failed) != 1 || choice.Failed[0].Backend != "vaapi" {
					t.Errorf("choice %+v", choice)
				}
				if q := psnr(f.decode(t), f.raw.Bytes()); q < 30 {
					t.Errorf("PSNR %.1f dB", q)
				}
				for range 300 {
					if len(log.Lines("end")) == len(log.Lines("begin")) {
						break
					}
					time.Sleep(10 * time.Millisecond)
				}
				log.Nothing()
			})
		}
	}
}

// machine is what a test allows a machine that does other things as well.
const machine = 400 * time.Millisecond

// TestOtherNumbering: a driver that numbers its slices the other way is followed by openh264 only with the daemon's leave.
func TestOtherNumbering(t *testing.T) {
	t.Setenv("FAKE_VA_NUMBERING", "5")
	t.Setenv("FAKE_VA_FAIL_AT", "20")
	e, _ := openH264Stream(t, newScene(320, 180, 30), 400_000, 30, patient(), OpenH264())
	seal := sealer(t, 320, 180)
	for i := range 40 {
		u := next(t, e)
		_, err := seal.Encrypt(nil, u.Payload)
		if i == 20 {
			if !errors.Is(err, e2ee.ErrClearPart) {
				t.Fatalf("another numbering: %v", err)
			}
			if err := seal.Repin(int64(time.Minute)); err != nil {
				t.Fatal(err)
			}
			_, err = seal.Encrypt(nil, u.Payload)
		}
		if err != nil {
			t.Fatalf("picture %d: %v", i, err)
		}
	}
}

func TestChoice(t *testing.T) {
	for _, c := range []struct{ env, value, says string }{
		{"FAKE_VA_INIT", "fail", "vaInitialize"},
		{"FAKE_VA_CONFIG", "busy", "vaCreateConfig"},
		{"FAKE_VA_CBR", "no", "constant bit rate"},
		{"FAKE_VA_ENTRYPOINTS", "none", "entry point"},
		{"FAKE_VA_FAIL_AT", "5", "probe: picture 5"},
		{"FAKE_VA_DAMAGE_AT", "3", "frame_num"},
		{"FAKE_VA_HANG_AT", "4", "probe: picture 4"},
	} {
		t.Run(c.env, func(t *testing.T) {
			t.Setenv(c.env, c.value)
			e, control := openH264Stream(t, newScene(320, 180, 30), 400_000, 30, append(VAAPI(vaapitest.Node), OpenH264())...)
			next(t, e)
			choice := control.(Chooser).Choice()
			t.Log(choice.Name, "since", choice.Reason())
			if choice.Backend != "openh264" || len(choice.Failed) != 2 || !strings.Contains(choice.Reason(), c.says) {
				t.Errorf("choice %+v", choice)
			}
			codec, backends, failed := Auto(vaapitest.Node, Format{320, 180, 30, 400_000})
			if codec != mediacap.VP8 || len(backends) != 1 || len(failed) != 2 {
				t.Errorf("auto: %v, %d backends, %v", codec, len(backends), failed)
			}
		})
	}
	t.Setenv("FAKE_VA_ENTRYPOINTS", "lp")
	e, control := openH264Stream(t, newScene(320, 180, 30), 400_000, 30, append(VAAPI(vaapitest.Node), OpenH264())...)
	next(t, e)
	if choice := control.(Chooser).Choice(); choice.Backend != "vaapi" || len(choice.Failed) != 1 || !strings.Contains(choice.Name, "EncSliceLP") {
		t.Errorf("low power only: %+v", choice)
	}
	if codec, backends, failed := Auto(vaapitest.Node, Format{320, 180, 30, 400_000}); codec != mediacap.H264 || len(backends) != 2 || len(failed) != 1 {
		t.Errorf("auto: %v, %d backends, %v", codec, len(backends), failed)
	}
}

func TestAllFailed(t *testing.T) {
	t.Setenv("FAKE_VA_CONFIG", "busy")
	e, control := openH264Stream(t, newScene(320, 180, 30), 400_000, 30, VAAPI(vaapitest.Node)...)
	if _, _, err := e.Read(); err == nil || !strings.Contains(err.Error(), "hw busy") {
		t.Errorf("error %v", err)
	}
	if c := control.(Chooser).Choice(); c.Backend != "" || len(c.Failed) != 2 {
		t.Errorf("choice %+v", c)
	}
	if len(VAAPI("")) == 0 {
		t.Error("without a GPU no backend says why")
	}
}

func TestH264RequestsDoNotWaitForAStalledCamera(t *testing.T) {
	for _, w := range h264Ways {
		t.Run(w.name, func(t *testing.T) {
			w.on(t)
			s := newScene(160, 96, 30)
			stall, n := make(chan struct{}), 0
			e, control := openH264Stream(t, video.ReaderFunc(func() (image.Image, func(), error) {
				if n++; n > 1 {
					<-stall
					return nil, func() {}, io.EOF
				}
				return s.Read()
			}), 300_000, 30, w.backend())
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
			if d := time.Since(begin); d > 100*time.Millisecond {
				t.Errorf("requests waited %v", d)
			}
			close(stall)
			if err := <-ended; err != io.EOF {
				t.Errorf("read after close: %v", err)
			}
		})
	}
}

func TestH264DoesNotAllocatePerPicture(t *testing.T) {
	for _, w := range h264Ways {
		t.Run(w.name, func(t *testing.T) {
			w.on(t)
			e, _ := openH264Stream(t, newScene(160, 96, 30), 300_000, 30, w.backend())
			for range 60 {
				next(t, e)
			}
			if n := testing.AllocsPerRun(100, func() { next(t, e) }); n > 0 {
				t.Errorf("%v allocations per picture", n)
			}
		})
	}
}

// TestThousandStartsAndSizes starts every encoder and changes its picture's size 1,000 times.
func TestThousandStartsAndSizes(t *testing.T) {
	for _, w := range append([]way{{"libvpx", "", Libvpx}}, h264Ways...) {
		t.Run(w.name, func(t *testing.T) {
			w.on(t)
			scenes := make([]*scene, 5)
			for i := range scenes {
				scenes[i] = newScene(160+16*i, 96+2*i, 30)
				if _, _, err := scenes[i].Read(); err != nil {
					t.Fatal(err)
				}
			}
			n, at := 0, mediacap.Time(time.Hour)
			source := video.ReaderFunc(func() (image.Image, func(), error) {
				p := &scenes[n%len(scenes)].picture
				n++
				at = at.Add(time.Second / 30)
				p.Captured = at
				return p, func() {}, nil
			})
			round := func() {
				e, err := newStream(source, w.backend().Codec, 300_000, 30, []Backend{w.backend()})
				if err != nil {
					t.Fatal(err)
				}
				defer e.Close()
				for range 4 {
					if u := next(t, e); !u.KeyFrame {
						t.Fatal("another size without a key frame")
					}
				}
			}
			for range 60 {
				round()
			}
			before := residentBytes(t)
			for range 250 {
				round()
			}
			grown := residentBytes(t) - before
			t.Logf("1,000 starts of encoders and changes of size cost %d KiB", grown>>10)
			if grown > 12<<20 {
				t.Errorf("1,000 starts of encoders and changes of size cost %d KiB", grown>>10)
			}
		})
	}
}

func TestH264TakesOddSizes(t *testing.T) {
	e, _ := openH264Stream(t, newScene(65, 49, 30), 300_000, 30, OpenH264())
	var f film
	for range 5 {
		u := next(t, e)
		if u.Width != 64 || u.Height != 48 {
			t.Fatalf("%+v", u)
		}
		f.units, f.codec = append(f.units, bytes.Clone(u.Payload)), u.Codec
	}
	if n := len(f.decode(t)); n != 5*64*48*3/2 {
		t.Errorf("%d bytes decoded", n)
	}
}
