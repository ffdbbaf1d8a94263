package e2e

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/e2e/browser"
	"github.com/alcove-room/alcove/daemon/e2e/stack"
)

// overhear keeps the text messages that the page's WebSockets bring.
const overhear = `window.overheard = [];
window.WebSocket = new Proxy(window.WebSocket, {
  construct(target, args, self) {
    const socket = Reflect.construct(target, args, self);
    socket.addEventListener('message', (e) => typeof e.data === 'string' && overheard.push(JSON.parse(e.data)));
    return socket;
  },
});`

// onlyWaits asserts that the hub gave the page no token, and that the page has no connection for media at all.
func onlyWaits(t *testing.T, p *browser.Page) {
	t.Helper()
	var kinds []string
	ok(t, p.Eval("overheard.map(m => m.token ? 'token' : m.t)", &kinds))
	if slices.ContainsFunc(kinds, func(k string) bool { return k == "token" || k == "admitted" }) || !slices.Contains(kinds, "waiting") {
		t.Errorf("a person who waits was sent %q", kinds)
	}
	var connections int
	ok(t, p.Eval("probe.connections()", &connections))
	if connections != 0 {
		t.Errorf("a person who waits has %d connections for media", connections)
	}
	var devices []struct{ ReadyState string }
	ok(t, p.Eval("probe.devices()", &devices))
	for _, d := range devices {
		if d.ReadyState != "ended" {
			t.Error("camera or microphone are open while the person waits")
		}
	}
}

// packets counts everything that a page received over WebRTC.
func packets(t *testing.T, p *browser.Page) (n float64) {
	t.Helper()
	ok(t, p.Eval("probe.stats('inbound-rtp').then(l => l.reduce((sum, s) => sum + s.packetsReceived, 0))", &n))
	return n
}

func waiting(n int) func(stack.Status) bool {
	return func(st stack.Status) bool { return st.Session != nil && len(st.Session.Waiting) == n }
}

// TestLobby is what somebody gets who has not been let in, and who was taken out.
func TestLobby(t *testing.T) {
	media := newSFU(t)
	s := start(t, media.options(t))
	b := chromium(t, browser.Options{})
	links := must[[]string](t)(s.Links(t.Context(), "therapist:Dr. Lee", "guest:Kim"))
	inside := enter(t, b, links[0], overhear)
	must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "a knock", waiting(1)))
	must[stack.Status](t)(s.Press(t.Context(), "admit", "Dr. Lee"))
	must[stack.Status](t)(s.Press(t.Context(), "start", "--when-admitted"))
	picture(t, inside, 20*time.Second)

	// Another browser: a browser has one place in a session.
	outside := enter(t, chromium(t, browser.Options{}), links[1], overhear)
	must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "a second knock", waiting(1)))
	screenshot(t, outside, "waiting")
	time.Sleep(3 * time.Second) // while the others talk
	onlyWaits(t, outside)
	room := media.room(t)
	if ids := media.identities(t, room); len(ids) != 2 {
		t.Errorf("in the LiveKit room are %q", ids)
	}

	must[stack.Status](t)(s.Press(t.Context(), "remove", "Dr. Lee"))
	ok(t, inside.Await(5*time.Second, "document.documentElement.dataset.screen === 'notice'"))
	screenshot(t, inside, "removed")
	silent(t, inside)
	before := packets(t, inside)
	must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "an empty session", func(st stack.Status) bool {
		return st.Session != nil && len(st.Session.People) == 0 && st.Camera == "off"
	}))
	time.Sleep(3 * time.Second)
	if ids := media.identities(t, room); len(ids) > 1 {
		t.Errorf("after the removal the LiveKit room holds %q", ids)
	}
	if after := packets(t, inside); after != before {
		t.Errorf("a person who was removed received %v more packets", after-before)
	}
	onlyWaits(t, outside)

	// The same link in the same browser leads to the lobby again, and no further.
	ok(t, inside.Reload())
	through(t, inside)
	must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "both wait", waiting(2)))
	time.Sleep(time.Second)
	onlyWaits(t, inside)
	// A busy media server keeps the hub's answer back; the room's own word is there long before.
	media.slow.Store(int64(1500 * time.Millisecond))
	must[stack.Status](t)(s.Press(t.Context(), "admit", "Dr. Lee"))
	must[stack.Status](t)(s.Press(t.Context(), "start", "--when-admitted"))
	picture(t, inside, 20*time.Second)

	media.slow.Store(0)
	// A reload in the middle of the call makes a newcomer too.
	ok(t, inside.Reload())
	through(t, inside)
	must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "both wait", waiting(2)))
	onlyWaits(t, inside)
}

// TestRoomRestarts kills the room's daemon in the middle of a call.
func TestRoomRestarts(t *testing.T) {
	s := start(t, stack.Options{})
	b := chromium(t, browser.Options{})
	p := call(t, s, b)
	picture(t, p, 15*time.Second)
	var code string
	ok(t, p.Eval("document.querySelector('.code').textContent", &code))

	ok(t, syscall.Kill(s.RoomPID(), syscall.SIGKILL))
	time.Sleep(6 * time.Second) // long enough for the page to say so
	screenshot(t, p, "room-gone")
	var text string
	ok(t, p.Eval("document.body.innerText", &text))
	if !strings.Contains(text, "lost") {
		t.Errorf("while the room is gone the page says:\n%s", text)
	}
	ok(t, s.RestartRoom(t.Context()))
	ok(t, p.Await(15*time.Second, "document.documentElement.dataset.screen === 'waiting' && document.body.innerText.includes('is back')"))
	screenshot(t, p, "room-back")
	silent(t, p)
	st := must[stack.Status](t)(s.Await(t.Context(), 10*time.Second, "a knock", waiting(1)))
	if len(st.Session.People) != 0 || st.Camera != "off" {
		t.Errorf("the restarted room says %+v, camera %s", st.Session, st.Camera)
	}
	must[stack.Status](t)(s.Press(t.Context(), "admit"))
	ok(t, p.Await(20*time.Second, "document.documentElement.dataset.screen === 'call'"))
	if st = must[stack.Status](t)(s.Status(t.Context())); st.Camera != "off" {
		t.Errorf("the camera is %s before somebody in the room has pressed start", st.Camera)
	}
	must[stack.Status](t)(s.Press(t.Context(), "start"))
	ok(t, p.Eval("probe.clear()", nil))
	picture(t, p, 15*time.Second)
	heard(t, p)
	var again string
	ok(t, p.Eval("document.querySelector('.code').textContent", &again))
	if again == "" || again == code {
		t.Errorf("the code was %q and is %q", code, again)
	}
}
