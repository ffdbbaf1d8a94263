package e2e

import (
	_ "embed"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

//go:embed stranger.js
var strangerSource []byte

// strangerPage builds and serves the page of stranger.js and returns its address.
func strangerPage(t *testing.T) string {
	t.Helper()
	modules := filepath.Join(root(t), "provisioning", "web", "node_modules")
	dir := t.TempDir()
	ok(t, os.WriteFile(filepath.Join(dir, "stranger.src.js"), strangerSource, 0o600))
	cmd := exec.Command(filepath.Join(modules, ".bin", "esbuild"), "stranger.src.js", "--bundle", "--format=iife", "--outfile=stranger.js", "--log-level=warning")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "NODE_PATH="+modules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("bundle the stranger's page: %v\n%s", err, out)
	}
	worker := must[[]byte](t)(os.ReadFile(filepath.Join(modules, "livekit-client", "dist", "livekit-client.e2ee.worker.js")))
	ok(t, os.WriteFile(filepath.Join(dir, "worker.js"), worker, 0o600))
	ok(t, os.WriteFile(filepath.Join(dir, "index.html"), []byte("<!doctype html><title>stranger</title><body><script src=stranger.js></script>"), 0o600))
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(srv.Close)
	return srv.URL
}

// strangerOptions is what the page's join takes.
type strangerOptions struct {
	URL     string `json:"url"`
	Token   string `json:"token"`
	Key     []int  `json:"key,omitempty"`
	Publish bool   `json:"publish,omitempty"`
}

func joinStranger(t *testing.T, p *browser.Page, o strangerOptions) (sid string) {
	t.Helper()
	var got struct {
		SID string `json:"sid"`
	}
	ok(t, p.Eval("stranger.join("+string(must[[]byte](t)(json.Marshal(o)))+")", &got))
	return got.SID
}

// tryStranger joins and says why it did not work out.
func tryStranger(p *browser.Page, o strangerOptions) error {
	raw, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return p.Eval("stranger.join("+string(raw)+")", nil)
}

type strangerSaw struct {
	Tracks []struct {
		Kind string `json:"kind"`
		Of   string `json:"of"`
	} `json:"tracks"`
	Errors map[string]int `json:"errors"`
	Left   string         `json:"left"`
}

// inbound is what a browser says of a track that it receives (webrtc-stats).
type inbound struct {
	Kind            string  `json:"kind"`
	TrackIdentifier string  `json:"trackIdentifier"`
	PacketsReceived float64 `json:"packetsReceived"`
	FramesDecoded   float64 `json:"framesDecoded"`
	AudioEnergy     float64 `json:"totalAudioEnergy"`
}

func received(t *testing.T, p *browser.Page) []inbound {
	t.Helper()
	var out []inbound
	ok(t, p.Eval("probe.stats('inbound-rtp')", &out))
	return out
}

// TestStranger joins the call's LiveKit room as whoever runs the SFU can: with a stock livekit-client, first under an
// SFU that follows the hub, then under one that lets the stranger stay.
func TestStranger(t *testing.T) {
	media := newSFU(t)
	s := start(t, media.options(t))
	b := chromium(t, browser.Options{})
	p := call(t, s, b)
	picture(t, p, 15*time.Second)
	page, room := strangerPage(t), media.room(t)

	t.Run("is removed", func(t *testing.T) {
		q := must[*browser.Page](t)(b.Open(page, probe))
		defer q.Close()
		// On a busy machine the hub may be faster than the stranger's connection; it has to stand once to be judged.
		var err error
		for range 3 {
			if err = tryStranger(q, strangerOptions{URL: media.URL, Token: media.token(t, room, "stranger")}); err == nil {
				break
			}
			t.Logf("the stranger did not get as far as a connection: %v", err)
		}
		ok(t, err)
		joined := time.Now()
		ok(t, q.Await(6*time.Second, "stranger.seen().left !== ''"))
		if took := time.Since(joined); took > 4*time.Second {
			t.Errorf("the hub removes a stranger after %v", took)
		}
		if slices.Contains(media.identities(t, room), "stranger") {
			t.Error("the stranger is still in the LiveKit room")
		}
	})
	media.keeps.Store(true)
	t.Run("without encryption", func(t *testing.T) { stranger(t, s, b, p, media, page, nil) })
	t.Run("with a wrong key", func(t *testing.T) {
		key := make([]int, 32)
		for i := range key {
			key[i] = 7 * i % 256
		}
		stranger(t, s, b, p, media, page, key)
	})
	if media.refused.Load() < 2 {
		t.Error("the hub did not try to remove the strangers")
	}
	st := must[stack.Status](t)(s.Status(t.Context()))
	if len(st.Session.People) != 1 {
		t.Errorf("the room says that %d people are there", len(st.Session.People))
	}
	picture(t, p, 5*time.Second)
	heard(t, p)
}

// stranger receives the call's tracks and asserts that they show and say nothing.
func stranger(t *testing.T, s *stack.Stack, b *browser.Browser, p *browser.Page, media *sfu, page string, key []int) {
	t.Helper()
	q := must[*browser.Page](t)(b.Open(page, probe))
	defer q.Close()
	room := media.room(t)
	name := map[bool]string{true: "keyless", false: "wrong-key"}[key == nil]
	joinStranger(t, q, strangerOptions{URL: media.URL, Token: media.token(t, room, name), Key: key})
	ok(t, q.Await(10*time.Second, "stranger.seen().tracks.length >= 4 && probe.stats('inbound-rtp').then(l => l.filter(s => s.packetsReceived > 50).length >= 4)"))

	// Chance alone correlates short pieces of noise with short pieces of voice; more than 3 s keep it far below 0.05.
	seconds := 10.0
	if key != nil {
		seconds = 4 // silence needs no statistics
	}
	pcm, began := listenTo(t, q, "document.querySelector('audio[data-of=\""+roomIdentity(t, s, media, room, name)+"\"]')", seconds)
	r, rms := correlate(pcm, began)
	var stamps []stamp
	ok(t, q.Eval("probe.stamps()", &stamps))
	if len(stamps) != 0 {
		t.Errorf("the stranger reads a frame counter: %v", stamps)
	}
	if r >= 0.05 {
		t.Errorf("what the stranger hears correlates with the room's voice: %.3f over %v s", r, seconds)
	}
	if len(pcm) < 3*48000 {
		t.Errorf("only %d samples were judged", len(pcm))
	}
	var saw strangerSaw
	ok(t, q.Eval("stranger.seen()", &saw))
	got := received(t, q)
	t.Logf("%s: correlation %.3f, RMS %.0f, errors %v, received %+v", name, r, rms, saw.Errors, got)
	if key == nil {
		// The measure can tell: the same sound, heard by the member at the same time.
		heard(t, p)
		return
	}
	if rms > 0 {
		t.Errorf("with a wrong key something sounds: RMS %.1f", rms)
	}
	for _, in := range got {
		if in.FramesDecoded > 0 || in.AudioEnergy > 0 {
			t.Errorf("with a wrong key something is decoded: %+v", in)
		}
	}
	if len(saw.Errors) == 0 {
		t.Error("the wrong key was never tried")
	}
	var text string
	ok(t, p.Eval("document.documentElement.dataset.screen", &text))
	if text != "call" {
		t.Errorf("with a stranger in the SFU the member's page is at %q", text)
	}
}

// roomIdentity is the room's identity in LiveKit: whoever is neither a member from outside nor the stranger.
func roomIdentity(t *testing.T, s *stack.Stack, media *sfu, room, stranger string) string {
	t.Helper()
	st := must[stack.Status](t)(s.Status(t.Context()))
	for _, id := range media.identities(t, room) {
		known := func(p stack.Person) bool { return p.ID == id }
		if id != stranger && !slices.ContainsFunc(st.Session.People, known) {
			return id
		}
	}
	t.Fatal("the room is not in the LiveKit room")
	return ""
}
