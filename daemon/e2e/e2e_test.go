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

func start(t *testing.T, opt stack.Options) *stack.Stack {
	t.Helper()
	opt.Bin = filepath.Join(root(t), "build", "bin")
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
	for _, screen := range []string{"welcome", "ask", "check"} {
		ok(t, p.Await(20*time.Second, "document.documentElement.dataset.screen === '"+screen+"' && document.querySelector('main .button.primary:not([disabled])')"))
		ok(t, p.Click("main .button.primary"))
	}
	ok(t, p.Await(20*time.Second, "document.documentElement.dataset.screen === 'waiting'"))
	return p
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
		before = max(before, after)
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
	var got struct {
		Began float64 `json:"began"`
		PCM   string  `json:"pcm"`
	}
	ok(t, p.Eval("probe.record("+jsNumber(seconds)+")", &got))
	raw, err := base64.StdEncoding.DecodeString(got.PCM)
	ok(t, err)
	pcm := make([]float64, len(raw)/2)
	for i := range pcm {
		pcm[i] = float64(int16(binary.LittleEndian.Uint16(raw[2*i:])))
	}
	return correlate(pcm, time.UnixMilli(int64(got.Began)))
}

func jsNumber(f float64) string { return base10(f) }

// correlate finds the best normalised cross-correlation of pcm (48 kHz) with the test voice around at, over
// delays from -0.5 s to 3 s, in steps that the voice's pitch cannot slip through.
func correlate(pcm []float64, at time.Time) (best, rms float64) {
	var energy float64
	for _, v := range pcm {
		energy += v * v
	}
	rms = math.Sqrt(energy / float64(len(pcm)))
	const down = 6 // 8 kHz keeps the voice's formants
	x := decimate(pcm, down)
	from := capturetest.OffsetAt(at) - 3*capturetest.SampleRate
	voice := capturetest.Voice(from, len(pcm)+4*capturetest.SampleRate)
	v := make([]float64, len(voice))
	for i, s := range voice {
		v[i] = float64(s)
	}
	y := decimate(v, down)
	for lag := 0; lag+len(x) <= len(y); lag++ {
		if r := math.Abs(pearson(x, y[lag:lag+len(x)])); r > best {
			best = r
		}
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

func pearson(x, y []float64) float64 {
	var sx, sy, sxx, syy, sxy float64
	for i := range x {
		sx += x[i]
		sy += y[i]
		sxx += x[i] * x[i]
		syy += y[i] * y[i]
		sxy += x[i] * y[i]
	}
	n := float64(len(x))
	d := (sxx - sx*sx/n) * (syy - sy*sy/n)
	if d <= 0 {
		return 0
	}
	return (sxy - sx*sy/n) / math.Sqrt(d)
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
