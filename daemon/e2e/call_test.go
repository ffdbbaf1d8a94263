package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

func base10(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// TestCall is the line: the room's picture and voice arrive in a browser, and the browser's in the room.
func TestCall(t *testing.T) {
	s := start(t, stack.Options{})
	b := chromium(t, browser.Options{})
	p := call(t, s, b)

	picture(t, p, 15*time.Second)
	heard(t, p)

	st := must[stack.Status](t)(s.Await(t.Context(), 15*time.Second, "the browser's picture and sound", func(st stack.Status) bool {
		if st.Session == nil || len(st.Session.People) != 1 {
			return false
		}
		got := st.Session.People[0].Received
		return got.VideoFrames > 30 && got.AudioPackets > 100 && got.Level > -60
	}))
	t.Logf("page to room: %+v", st.Session.People[0].Received)

	var code string
	ok(t, p.Eval("document.querySelector('.code').textContent", &code))
	if code == "" || code != st.Session.Code {
		t.Errorf("the page shows code %q, the room %q", code, st.Session.Code)
	}
	screenshot(t, p, "call")

	must[stack.Status](t)(s.Press(t.Context(), "mute"))
	time.Sleep(500 * time.Millisecond)
	if r, rms := hear(t, p, 1.5); rms > 10 {
		t.Errorf("muted, the page still hears the room: correlation %.3f, RMS %.0f", r, rms)
	}
	must[stack.Status](t)(s.Press(t.Context(), "end"))
	ok(t, p.Await(10*time.Second, "document.documentElement.dataset.screen === 'notice'"))
	screenshot(t, p, "ended")
	must[stack.Status](t)(s.Await(t.Context(), 5*time.Second, "camera off", func(st stack.Status) bool { return st.Camera == "off" && st.Session == nil }))
}

// screenshot keeps a picture of the page for people to look at.
func screenshot(t *testing.T, p *browser.Page, name string) {
	t.Helper()
	dir := filepath.Join(root(t), "build", "screens")
	ok(t, os.MkdirAll(dir, 0o755))
	time.Sleep(500 * time.Millisecond) // a screen fades in
	ok(t, p.Screenshot(filepath.Join(dir, name+".png")))
}
