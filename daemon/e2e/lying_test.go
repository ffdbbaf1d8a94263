package e2e

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

const ghost = "ghost"

// mask is an SFU that shows a page somebody else's tracks as the room's: a third participant, who publishes in the
// clear, disappears from what the page is told, and its tracks appear under the room's name.
type mask struct {
	encryption livekit.Encryption_Type // what the tracks are announced as

	mu    sync.Mutex
	room  string // its identity
	roomP *livekit.ParticipantInfo
	fake  *livekit.ParticipantInfo
	told  bool // the page has been told of the tracks
}

func (m *mask) lie(who party, res *livekit.SignalResponse) {
	if who != aPage {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch v := res.Message.(type) {
	case *livekit.SignalResponse_Join:
		v.Join.OtherParticipants = m.rewrite(v.Join.OtherParticipants)
	case *livekit.SignalResponse_Update:
		v.Update.Participants = m.rewrite(v.Update.Participants)
	}
	if m.fake == nil || m.roomP == nil {
		return
	}
	// Sids have one length, so that they can be exchanged wherever they stand: descriptions, states, subscriptions.
	raw, err := proto.Marshal(res)
	if err != nil {
		return
	}
	var changed livekit.SignalResponse
	if proto.Unmarshal(bytes.ReplaceAll(raw, []byte(m.fake.Sid), []byte(m.roomP.Sid)), &changed) == nil {
		res.Message = changed.Message
	}
}

func (m *mask) rewrite(list []*livekit.ParticipantInfo) (out []*livekit.ParticipantInfo) {
	for _, p := range list {
		switch p.Identity {
		case m.room:
			m.roomP = proto.CloneOf(p)
		case ghost:
			m.fake = proto.CloneOf(p)
		default:
			out = append(out, p)
		}
	}
	if len(out) == len(list) || m.roomP == nil {
		return out
	}
	shown := proto.CloneOf(m.roomP)
	if m.fake != nil {
		shown.Version += 1000 + m.fake.Version
		for _, track := range m.fake.Tracks {
			track = proto.CloneOf(track)
			track.Encryption = m.encryption
			shown.Tracks = append(shown.Tracks, track)
			m.told = true
		}
	}
	return append(out, shown)
}

func (m *mask) toldOf() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

// TestLyingSFU is what an SFU can say to a page about tracks and identities.
func TestLyingSFU(t *testing.T) {
	media := newSFU(t)
	media.keeps.Store(true) // whoever can lie can also leave the hub's removals undone
	s := start(t, media.options(t))
	b := chromium(t, browser.Options{})
	// The ghost's picture and sound are known, so that a single frame of it would be recognised.
	g := chromium(t, browser.Options{Video: film(t), Audio: tape(t)})
	page := strangerPage(t)

	t.Run("clear frames announced as encrypted", func(t *testing.T) {
		p := call(t, s, b)
		picture(t, p, 15*time.Second)
		before := received(t, p)
		haunt(t, s, media, b, g, page, livekit.Encryption_GCM)
		ok(t, p.Await(15*time.Second, "probe.stats('inbound-rtp').then(l => l.filter(s => s.packetsReceived > 50).length >= 4)"))
		time.Sleep(2 * time.Second)
		clear := 0
		for _, in := range received(t, p) {
			if known(before, in) {
				continue
			}
			clear++
			if in.FramesDecoded > 0 || in.AudioEnergy > 0 {
				t.Errorf("a track of clear frames is played: %+v", in)
			}
		}
		if clear != 2 {
			t.Errorf("%d tracks of clear frames reached the page, not 2", clear)
		}
		neverSeen(t, p)
		screenshot(t, p, "lie-clear-frames")
		leave(t, s, media, p)
	})
	t.Run("one more track announced as unencrypted", func(t *testing.T) {
		p := call(t, s, b)
		picture(t, p, 15*time.Second)
		haunt(t, s, media, b, g, page, livekit.Encryption_NONE)
		stopped(t, p)
		neverSeen(t, p)
		screenshot(t, p, "lie-unencrypted")
		leave(t, s, media, p)
	})
	t.Run("another identity", func(t *testing.T) {
		lies := func(who party, res *livekit.SignalResponse) {
			if join, is := res.Message.(*livekit.SignalResponse_Join); is && who == aPage {
				join.Join.Participant.Identity = "somebody"
			}
		}
		media.lies(lies)
		p := enter(t, b, must[string](t)(s.Session(t.Context(), "patient:Sam")))
		must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "a knock", func(st stack.Status) bool {
			return st.Session != nil && len(st.Session.Waiting) == 1
		}))
		must[stack.Status](t)(s.Press(t.Context(), "admit"))
		stopped(t, p)
		screenshot(t, p, "lie-identity")
		for _, track := range received(t, p) {
			t.Errorf("a page under another identity received %+v", track)
		}
		leave(t, s, media, p)
	})
}

// haunt makes the ghost join and publish in the clear, and the SFU show its tracks as the room's.
func haunt(t *testing.T, s *stack.Stack, media *sfu, b, g *browser.Browser, page string, e livekit.Encryption_Type) {
	t.Helper()
	room := media.room(t)
	m := &mask{encryption: e, room: roomIdentity(t, s, media, room, ghost)}
	media.lies(m.lie)
	// The page has heard of the room before the lies began; now it is told again.
	m.roomP = media.participant(t, room, m.room)
	q := must[*browser.Page](t)(g.Open(page, probe))
	t.Cleanup(q.Close)
	joinStranger(t, q, strangerOptions{URL: media.URL, Token: media.token(t, room, ghost), Publish: true})
	for began := time.Now(); !m.toldOf(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("the lie was never told")
		}
	}
	if e == livekit.Encryption_NONE {
		return
	}
	// What the ghost sends is clear: an honest listener without any key sees its picture.
	w := must[*browser.Page](t)(b.Open(page, probe))
	t.Cleanup(w.Close)
	joinStranger(t, w, strangerOptions{URL: media.URL, Token: media.token(t, room, "witness")})
	ok(t, w.Await(15*time.Second, "probe.stamps().some(s => s.counter >= "+base10(filmFirst)+")"))
}

// neverSeen asserts that no picture of the ghost was shown by the page.
func neverSeen(t *testing.T, p *browser.Page) {
	t.Helper()
	var n int
	ok(t, p.Eval("probe.stamps().filter(s => s.counter >= "+base10(filmFirst)+" && s.counter < "+base10(filmFirst+filmFrames)+").length", &n))
	if n > 0 {
		t.Errorf("%d pictures of the ghost were shown", n)
	}
}

// stopped asserts that the page ended the call with words and plays nothing.
func stopped(t *testing.T, p *browser.Page) {
	t.Helper()
	ok(t, p.Await(15*time.Second, "document.documentElement.dataset.screen === 'notice'"))
	var text string
	ok(t, p.Eval("document.body.innerText", &text))
	if !strings.Contains(text, "KEY-04") {
		t.Errorf("the page says:\n%s", text)
	}
	silent(t, p)
}

// silent asserts that no element of the page holds anything to play, and that camera and microphone are closed.
func silent(t *testing.T, p *browser.Page) {
	t.Helper()
	ok(t, p.Await(3*time.Second, "[...document.querySelectorAll('audio, video')].every(e => !e.srcObject)"))
	ok(t, p.Await(3*time.Second, "probe.devices().every(t => t.readyState === 'ended')"))
}

func known(before []inbound, in inbound) bool {
	for _, b := range before {
		if b.TrackIdentifier == in.TrackIdentifier {
			return true
		}
	}
	return false
}

// leave ends a session so that the next can begin.
func leave(t *testing.T, s *stack.Stack, media *sfu, p *browser.Page) {
	t.Helper()
	media.lies(nil)
	must[stack.Status](t)(s.Press(t.Context(), "end"))
	p.Close()
	must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "the end", func(st stack.Status) bool { return st.Session == nil }))
}
