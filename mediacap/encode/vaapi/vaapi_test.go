package vaapi_test

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/mediacap/encode/vaapi"
	"github.com/alcove-room/alcove/mediacap/encode/vaapi/vaapitest"
)

func TestMain(m *testing.M) { os.Exit(vaapitest.Main(m, "vaapitest/testdata")) }

func config(w, h int) vaapi.Config {
	return vaapi.Config{Node: vaapitest.Node, EntryPoint: vaapi.EncSlice, Width: w, Height: h, FrameRate: 30, BitRate: 800_000, Level: 31,
		Limit: 20 * time.Second} // what the driver does here is done by a processor that others use too
}

func open(t testing.TB, cfg vaapi.Config) *vaapi.Encoder {
	t.Helper()
	e, err := vaapi.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// scene draws picture n of something round that moves, with noise that no encoder can foresee.
//
//go:norace
func scene(img *image.YCbCr, n int) {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	cx, seed := w/2+int(float64(w)/4*math.Sin(float64(n)/15)), uint32(n)*2654435761+1
	for y := range h {
		for x := range w {
			v := 80 + x*60/w + y*30/h
			if d := (x-cx)*(x-cx) + (y-h/2)*(y-h/2); d < h*h/9 {
				v = 110 + 50*((x/6+y/6+n/3)%2)
			}
			seed = seed*1664525 + 1013904223
			img.Y[y*img.YStride+x] = uint8(v + int(seed>>30))
		}
	}
	for i := range img.Cb {
		img.Cb[i], img.Cr[i] = uint8(100+i%50), 140
	}
}

func picture(w, h int) *image.YCbCr {
	return image.NewYCbCr(image.Rect(0, 0, w, h), image.YCbCrSubsampleRatio420)
}

// run encodes n pictures; key says which are to be key frames, rate what comes into force where.
func run(t *testing.T, e *vaapi.Encoder, w, h, n int, key []int, rate map[int]int) (stream []byte, raw []byte) {
	t.Helper()
	img := picture(w, h)
	for i := range n {
		scene(img, i)
		if r, ok := rate[i]; ok {
			if err := e.SetRate(r); err != nil {
				t.Fatal(err)
			}
		}
		want := slices.Contains(key, i)
		unit, isKey, err := e.Encode(img, time.Duration(i)*time.Second/30, want)
		if err != nil {
			t.Fatalf("picture %d: %v", i, err)
		}
		if isKey != (want || i == 0) || len(unit) == 0 {
			t.Fatalf("picture %d: %d bytes, key frame %v", i, len(unit), isKey)
		}
		stream = append(stream, unit...)
		raw = append(append(append(raw, img.Y...), img.Cb...), img.Cr...)
	}
	return stream, raw
}

// decode is FFmpeg's software decoder, which knows nothing of us.
func decode(t *testing.T, stream []byte) []byte {
	t.Helper()
	cmd := exec.Command("ffmpeg", "-nostdin", "-loglevel", "error", "-xerror", "-f", "h264", "-i", "pipe:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stream), &out, &errs
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		t.Fatalf("ffmpeg: %v\n%s", err, &errs)
	}
	return out.Bytes()
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

// TestStream decodes what drivers of all kinds make of our parameters: a wrong one makes another picture, or none.
func TestStream(t *testing.T) {
	for _, headers := range []string{"driver", "app"} {
		for _, c := range []struct {
			name string
			env  [2]string
			p    vaapi.EntryPoint
			w, h int
		}{
			{"plain", [2]string{}, vaapi.EncSlice, 640, 360},
			{"low power", [2]string{"FAKE_VA_ENTRYPOINTS", "lp"}, vaapi.EncSliceLP, 640, 360},
			{"copied images", [2]string{"FAKE_VA_DERIVE", "no"}, vaapi.EncSlice, 320, 180},
			{"without limit", [2]string{"FAKE_VA_SYNC_BUFFER", "no"}, vaapi.EncSlice, 320, 180},
			{"odd macroblocks", [2]string{}, vaapi.EncSlice, 854, 482},
			{"1080", [2]string{}, vaapi.EncSlice, 1920, 1080},
		} {
			t.Run(headers+"/"+c.name, func(t *testing.T) {
				log := vaapitest.NewLog(t)
				t.Setenv("FAKE_VA_HEADERS", headers)
				if c.env[0] != "" {
					t.Setenv(c.env[0], c.env[1])
				}
				cfg := config(c.w, c.h)
				cfg.EntryPoint = c.p
				e := open(t, cfg)
				if name := e.Name(); !strings.Contains(name, c.p.String()) || !strings.Contains(name, "fake driver") {
					t.Errorf("name %q", name)
				}
				stream, raw := run(t, e, c.w, c.h, 45, []int{20, 21, 30}, map[int]int{10: 2_000_000, 25: 500_000})
				e.Close()
				decoded := decode(t, stream)
				if len(decoded) != len(raw) {
					t.Fatalf("%d bytes decoded, want %d", len(decoded), len(raw))
				}
				quality := psnr(decoded, raw)
				t.Logf("%d bytes, PSNR %.1f dB", len(stream), quality)
				if quality < 30 {
					t.Errorf("PSNR %.1f dB", quality)
				}
				if got := log.Lines("rate"); !slices.Equal(got, []string{"picture=0 bps=800000", "picture=10 bps=2000000", "picture=25 bps=500000"}) {
					t.Errorf("the driver was told rates %q", got)
				}
				if got := log.Lines("idr"); !slices.Equal(got, []string{"picture=0", "picture=20", "picture=21", "picture=30"}) {
					t.Errorf("the driver was told IDR pictures %q", got)
				}
				log.Clean()
			})
		}
	}
}

// TestLongStream passes the turn of frame_num and of the picture order count.
func TestLongStream(t *testing.T) {
	for _, headers := range []string{"driver", "app"} {
		t.Run(headers, func(t *testing.T) {
			log := vaapitest.NewLog(t)
			t.Setenv("FAKE_VA_HEADERS", headers)
			e := open(t, config(32, 32))
			img, n := picture(32, 32), 1<<15+200
			var tail []byte
			var last []byte
			for i := range n {
				if i%7 == 0 {
					scene(img, i)
				}
				unit, _, err := e.Encode(img, time.Duration(i)*time.Second/30, false)
				if err != nil {
					t.Fatalf("picture %d: %v", i, err)
				}
				tail = append(tail, unit...)
				last = append(append(append(last[:0], img.Y...), img.Cb...), img.Cr...)
			}
			e.Close()
			decoded := decode(t, tail)
			if len(decoded) != n*len(last) {
				t.Fatalf("%d pictures decoded of %d", len(decoded)/len(last), n)
			}
			if q := psnr(decoded[len(decoded)-len(last):], last); q < 28 {
				t.Errorf("the last picture has PSNR %.1f dB", q)
			}
			log.Clean()
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestEveryCallMayFail lets each call of the driver fail in turn: an error that names the call, nothing left behind.
func TestEveryCallMayFail(t *testing.T) {
	counts := map[string]int{}
	for _, env := range [][2]string{{"FAKE_VA_DERIVE", "yes"}, {"FAKE_VA_DERIVE", "no"}, {"FAKE_VA_SYNC_BUFFER", "no"}} {
		for _, call := range []string{"QueryConfigEntrypoints", "GetConfigAttributes", "CreateConfig", "CreateSurfaces", "CreateContext",
			"CreateBuffer", "DeriveImage", "QueryImageFormats", "CreateImage", "MapBuffer", "UnmapBuffer", "PutImage", "DestroyImage",
			"BeginPicture", "RenderPicture", "EndPicture", "SyncBuffer", "SyncSurface", "DestroyBuffer"} {
			counts[call] += 0
			first := 1
			if call == "DeriveImage" {
				first = 2 // the first is the question whether there is another way
			}
			for n := first; ; n++ {
				failed := failing(t, env, call, n)
				if !failed {
					break
				}
				counts[call]++
			}
		}
	}
	t.Logf("failures that ended an encoder, by call: %v", counts)
	for call, n := range counts {
		if n == 0 {
			t.Errorf("%s never failed", call)
		}
	}
}

// failing runs an encoder of which the n-th call fails, and reports whether it did.
func failing(t *testing.T, env [2]string, call string, n int) (failed bool) {
	t.Helper()
	t.Run(fmt.Sprintf("%s=%s/%s/%d", env[0], env[1], call, n), func(t *testing.T) {
		log := vaapitest.NewLog(t)
		t.Setenv("FAKE_VA_HEADERS", "app")
		t.Setenv(env[0], env[1])
		t.Setenv("FAKE_VA_FAIL", fmt.Sprintf("%s:%d", call, n))
		before := descriptors(t)
		err := func() error {
			e, err := vaapi.Open(config(64, 48))
			if err != nil {
				return err
			}
			defer e.Close()
			img := picture(64, 48)
			for i := range 3 {
				scene(img, i)
				if _, _, err := e.Encode(img, 0, i == 2); err != nil {
					return err
				}
			}
			return nil
		}()
		failed = err != nil
		var step *vaapi.Error
		switch {
		case err == nil:
		case !errors.As(err, &step):
			t.Errorf("%v does not name the call", err)
		case step.Step != "va"+call:
			t.Errorf("%v, want va%s", err, call)
		}
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
		log.Nothing()
	})
	return failed
}

func TestDriversThatRefuse(t *testing.T) {
	for _, c := range []struct {
		env, value string
		p          vaapi.EntryPoint
		says       string
	}{
		{"FAKE_VA_INIT", "fail", vaapi.EncSlice, "vaInitialize: unknown libva error"},
		{"FAKE_VA_CONFIG", "busy", vaapi.EncSlice, "vaCreateConfig: hw busy"},
		{"FAKE_VA_CBR", "no", vaapi.EncSlice, "constant bit rate"},
		{"FAKE_VA_ENTRYPOINTS", "lp", vaapi.EncSlice, "find entry point"},
		{"FAKE_VA_ENTRYPOINTS", "slice", vaapi.EncSliceLP, "find entry point"},
		{"FAKE_VA_ENTRYPOINTS", "none", vaapi.EncSliceLP, "find entry point"},
		{"LIBVA_DRIVER_NAME", "absent", vaapi.EncSlice, "vaInitialize"},
	} {
		t.Run(c.env+"="+c.value, func(t *testing.T) {
			log := vaapitest.NewLog(t)
			t.Setenv(c.env, c.value)
			before := descriptors(t)
			cfg := config(64, 48)
			cfg.EntryPoint = c.p
			e, err := vaapi.Open(cfg)
			if err == nil {
				e.Close()
				t.Fatal("opened")
			}
			t.Log(err)
			if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), vaapitest.Node) {
				t.Errorf("%v", err)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
			log.Nothing()
		})
	}
	cfg := config(64, 48)
	cfg.Node = filepath.Join(t.TempDir(), "renderD128")
	if _, err := vaapi.Open(cfg); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("node that is none: %v", err)
	}
	for _, size := range [][2]int{{63, 48}, {64, 47}, {8, 48}, {5000, 48}} {
		if _, err := vaapi.Open(config(size[0], size[1])); err == nil {
			t.Errorf("opened at %v", size)
		}
	}
}

// TestHang gives up on a driver that does not return, and frees what it held when it does.
func TestHang(t *testing.T) {
	for _, c := range []struct{ sync, hang string }{{"yes", ""}, {"no", "1500"}} {
		t.Run("with a limit "+c.sync, func(t *testing.T) {
			log := vaapitest.NewLog(t)
			t.Setenv("FAKE_VA_SYNC_BUFFER", c.sync)
			t.Setenv("FAKE_VA_HANG_AT", "2")
			t.Setenv("FAKE_VA_HANG_MS", c.hang)
			cfg := config(64, 48)
			cfg.Limit = 0
			e := open(t, cfg)
			img := picture(64, 48)
			for i := range 2 {
				if _, _, err := e.Encode(img, 0, false); err != nil {
					t.Fatalf("picture %d: %v", i, err)
				}
			}
			began := time.Now()
			_, _, err := e.Encode(img, 0, false)
			took := time.Since(began)
			var step *vaapi.Error
			if !errors.Is(err, vaapi.ErrHung) && !(errors.As(err, &step) && step.Step == "vaSyncBuffer") {
				t.Errorf("error %v", err)
			}
			t.Logf("%v after %v", err, took)
			if took < vaapi.Limit/2 || took > vaapi.Limit+500*time.Millisecond {
				t.Errorf("gave up after %v", took)
			}
			if c.sync == "no" {
				if _, _, err := e.Encode(img, 0, false); !errors.Is(err, vaapi.ErrHung) {
					t.Errorf("used after a hang: %v", err)
				}
			}
			began = time.Now()
			e.Close()
			if took := time.Since(began); took > 500*time.Millisecond {
				t.Errorf("close took %v", took)
			}
			for range 500 {
				if len(log.Lines("end")) > 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			log.Clean()
		})
	}
}

func TestEmptyOutput(t *testing.T) {
	log := vaapitest.NewLog(t)
	t.Setenv("FAKE_VA_EMPTY_AT", "3")
	e := open(t, config(64, 48))
	img := picture(64, 48)
	var keys []int
	for i := range 8 {
		unit, key, err := e.Encode(img, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		if (len(unit) == 0) != (i == 3) {
			t.Errorf("picture %d: %d bytes", i, len(unit))
		}
		if key {
			keys = append(keys, i)
		}
	}
	// Nobody knows what a dropped picture left in the reference, so the next begins anew.
	if !slices.Equal(keys, []int{0, 4}) {
		t.Errorf("key frames %v", keys)
	}
	e.Close()
	log.Clean()
}

func residentKiB(t *testing.T) int {
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
	return pages * os.Getpagesize() >> 10
}

// TestThousandStarts starts encoders of changing size, and every tenth fails on the way.
func TestThousandStarts(t *testing.T) {
	log := vaapitest.NewLog(t)
	round := func(i int) {
		t.Setenv("FAKE_VA_HEADERS", []string{"app", "driver"}[i%2])
		t.Setenv("FAKE_VA_CONFIG", map[bool]string{true: "busy"}[i%10 == 9])
		w, h := 160+16*(i%5), 96+2*(i%7)
		e, err := vaapi.Open(config(w, h))
		if err != nil {
			if i%10 != 9 {
				t.Fatal(err)
			}
			return
		}
		defer e.Close()
		img := picture(w, h)
		for range 2 {
			if _, _, err := e.Encode(img, 0, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 100 {
		round(i)
	}
	before, files := residentKiB(t), descriptors(t)
	for i := range 1000 {
		round(i)
	}
	grown := residentKiB(t) - before
	t.Logf("1,000 starts cost %d KiB", grown)
	if grown > 8<<10 || descriptors(t) != files {
		t.Errorf("1,000 starts cost %d KiB and %d descriptors", grown, descriptors(t)-files)
	}
	log.Clean()
}

func TestNoAllocationPerPicture(t *testing.T) {
	e := open(t, config(160, 96))
	img := picture(160, 96)
	encode := func() {
		if _, _, err := e.Encode(img, 0, false); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		encode()
	}
	if n := testing.AllocsPerRun(100, encode); n > 0 {
		t.Errorf("%v allocations per picture", n)
	}
}
