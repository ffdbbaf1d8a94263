// Package e2e tests the built programs together with a real Chromium and a real LiveKit. What a person in the
// room or at the page would see and hear is measured from outside: by pixels, by samples and by
// `alcoved room status`.
package e2e

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
	"github.com/alcove-room/alcove/mediacap/capturetest"
)

var full = flag.Bool("full", false, "also what takes long")

//go:embed probe.js
var probe string

// root is the top of the clone.
func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// bin is the folder of the built programs.
func bin(t testing.TB) string { return filepath.Join(root(t), "build", "bin") }

func start(t *testing.T, opt stack.Options) *stack.Stack {
	t.Helper()
	opt.Bin = bin(t)
	s, err := stack.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Logs())
		}
		s.Stop()
	})
	return s
}

func chromium(t *testing.T, opt browser.Options) *browser.Browser {
	t.Helper()
	b, err := browser.Start(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enter takes a person from the link to the lobby, as a person would.
func enter(t *testing.T, b *browser.Browser, link string, scripts ...string) *browser.Page {
	t.Helper()
	p := must[*browser.Page](t)(b.Open(link, append([]string{probe}, scripts...)...))
	through(t, p)
	return p
}

// through takes a page that has just been opened to the lobby.
func through(t *testing.T, p *browser.Page) {
	t.Helper()
	for _, screen := range []string{"welcome", "ask", "check"} {
		ok(t, p.Await(20*time.Second, "document.documentElement.dataset.screen === '"+screen+"' && document.querySelector('main .button.primary:not([disabled])')"))
		ok(t, p.Click("main .button.primary"))
	}
	ok(t, p.Await(20*time.Second, "document.documentElement.dataset.screen === 'waiting'"))
}

// call brings one person into a running session.
func call(t *testing.T, s *stack.Stack, b *browser.Browser, scripts ...string) *browser.Page {
	t.Helper()
	link := must[string](t)(s.Session(t.Context(), "therapist:Dr. Lee"))
	p := enter(t, b, link, scripts...)
	must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "a knock", func(st stack.Status) bool {
		return st.Session != nil && len(st.Session.Waiting) == 1
	}))
	must[stack.Status](t)(s.Press(t.Context(), "admit"))
	must[stack.Status](t)(s.Press(t.Context(), "start", "--when-admitted"))
	if err := p.Await(30*time.Second, "document.documentElement.dataset.screen === 'call'"); err != nil {
		t.Fatal(err)
	}
	ok(t, p.Eval("(probe.clear(), true)", nil)) // a stamp in the page's own preview is none of the room's
	return p
}

type stamp struct {
	Counter uint32  `json:"counter"`
	Clock   float64 `json:"clock"`
	Shown   float64 `json:"shown"`
}

// picture asserts that the burnt-in frame counter, read from the decoded picture, rises.
func picture(t *testing.T, p *browser.Page, within time.Duration) {
	t.Helper()
	var before, after int64
	ok(t, p.Eval("probe.counter()", &before))
	deadline := time.Now().Add(within)
	for time.Now().Before(deadline) {
		ok(t, p.Eval("probe.counter()", &after))
		if after > before && before >= 0 {
			return
		}
		before = after // which may be lower: another picture with a stamp has taken the place of the first
		time.Sleep(200 * time.Millisecond)
	}
	var text string
	var stats []map[string]any
	ok(t, p.Eval("document.body.innerText", &text))
	ok(t, p.Eval("probe.stats('inbound-rtp')", &stats))
	t.Fatalf("the frame counter in the picture does not rise: %d, then %d; received %v; the page says:\n%s\n%s", before, after, stats, text, p.Said())
}

// hear records what the page plays and correlates it with what the room's test microphone heard at that time.
func hear(t *testing.T, p *browser.Page, seconds float64) (r, rms float64) {
	t.Helper()
	pcm, began := listen(t, p, seconds)
	return correlate(pcm, began)
}

// heard asserts that the room's voice arrives at the page. A browser that is busy stretches what it plays, so it may
// need more than one try.
func heard(t *testing.T, p *browser.Page) {
	t.Helper()
	var r, rms float64
	for range 3 {
		if r, rms = hear(t, p, 2); r >= 0.5 && rms >= 100 {
			t.Logf("room to page: correlation %.3f, RMS %.0f of 32767", r, rms)
			return
		}
	}
	t.Errorf("the room's voice does not arrive: correlation %.3f, RMS %.0f of 32767", r, rms)
}

// listen records what the page plays, 48 kHz, and when it began.
func listen(t *testing.T, p *browser.Page, seconds float64) (pcm []float64, began time.Time) {
	t.Helper()
	return listenTo(t, p, "[...document.querySelectorAll('.tile audio')].find(a => a.srcObject)", seconds)
}

// listenTo records what one element plays.
func listenTo(t *testing.T, p *browser.Page, element string, seconds float64) (pcm []float64, began time.Time) {
	t.Helper()
	var got struct {
		Began float64 `json:"began"`
		PCM   string  `json:"pcm"`
	}
	ok(t, p.Eval("probe.recordElement("+element+", "+jsNumber(seconds)+")", &got))
	raw, err := base64.StdEncoding.DecodeString(got.PCM)
	ok(t, err)
	return samples(raw), time.UnixMilli(int64(got.Began))
}

func samples(raw []byte) []float64 {
	pcm := make([]float64, len(raw)/2)
	for i := range pcm {
		pcm[i] = float64(int16(binary.LittleEndian.Uint16(raw[2*i:])))
	}
	return pcm
}

func jsNumber(f float64) string { return base10(f) }

// correlate finds the best normalised cross-correlation of pcm (48 kHz) with the room's test voice around at, over
// delays from -1 s to 3 s.
func correlate(pcm []float64, at time.Time) (best, rms float64) {
	from := capturetest.OffsetAt(at) - 3*capturetest.SampleRate
	return bestMatch(pcm, capturetest.Voice(from, len(pcm)+4*capturetest.SampleRate))
}

// bestMatch finds the best normalised cross-correlation of pcm with any part of voice, in steps that the voice's
// pitch cannot slip through, and pcm's RMS.
func bestMatch(pcm []float64, voice []int16) (best, rms float64) {
	var energy float64
	for _, v := range pcm {
		energy += v * v
	}
	rms = math.Sqrt(energy / max(float64(len(pcm)), 1))
	const down = 6 // 8 kHz keeps the voice's formants
	x := decimate(pcm, down)
	v := make([]float64, len(voice))
	for i, s := range voice {
		v[i] = float64(s)
	}
	y := decimate(v, down)
	// Sums of y up to each place, so that a window's mean and spread cost nothing.
	sum, squares := make([]float64, len(y)+1), make([]float64, len(y)+1)
	for i, v := range y {
		sum[i+1], squares[i+1] = sum[i]+v, squares[i]+v*v
	}
	var sx, sxx float64
	for _, v := range x {
		sx += v
		sxx += v * v
	}
	n := float64(len(x))
	for lag := 0; lag+len(x) <= len(y); lag++ {
		sy, syy := sum[lag+len(x)]-sum[lag], squares[lag+len(x)]-squares[lag]
		spread := (sxx - sx*sx/n) * (syy - sy*sy/n)
		if spread <= 0 {
			continue
		}
		var sxy float64
		for i, w := range y[lag : lag+len(x)] {
			sxy += x[i] * w
		}
		best = max(best, math.Abs((sxy-sx*sy/n)/math.Sqrt(spread)))
	}
	return best, rms
}

func decimate(x []float64, n int) []float64 {
	out := make([]float64, len(x)/n)
	for i := range out {
		for _, v := range x[i*n : (i+1)*n] {
			out[i] += v / float64(n)
		}
	}
	return out
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
