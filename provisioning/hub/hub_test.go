package hub

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

func TestInvitation(t *testing.T) {
	w := start(t)
	s := w.addSession()
	inv := w.invite(s.SID, s.Participants[0].ID)
	first, other := w.browser(), w.browser()

	for i := range inv { // every one-character change is refused, and uses nothing up
		if i%7 != 0 && i != len(inv)-1 {
			continue
		}
		c := byte('A')
		if inv[i] == c {
			c = 'B'
		}
		if code := other.join(inv[:i]+string(c)+inv[i+1:], http.StatusNotFound, nil); code != "unknown" {
			t.Errorf("changed invitation: %q", code)
		}
	}
	var a, b joinAnswer
	first.join(inv, http.StatusOK, &a)
	if a.Participant.Name != "Dr. Weiß" || a.Participant.Role != "therapist" || !a.Demo || a.Room.Label != "Room room-1" ||
		a.Session.SID != s.SID || a.Session.Clinic != w.clinic.hash.String() {
		t.Errorf("answer %+v", a)
	}
	if code := other.join(inv, http.StatusGone, nil); code != "used" {
		t.Errorf("second browser: %q", code)
	}
	p := w.hello(a.Bearer)
	p.want("welcome")
	first.join(inv, http.StatusOK, &b) // the same browser, again
	if a.Bearer == b.Bearer {
		t.Error("a rejoin must make a new bearer")
	}
	q := w.hello(b.Bearer)
	q.want("welcome")
	if code := p.want("closed")["code"]; code != 4001 {
		t.Errorf("the former connection was closed with %v", code)
	}
	if code := w.hello(a.Bearer).want("closed")["code"]; code != 4005 {
		t.Errorf("the former bearer: closed with %v", code)
	}

	next := w.invite(s.SID, s.Participants[0].ID)
	if code := q.want("closed")["code"]; code != 4001 {
		t.Errorf("a new invitation must end what the former opened: %v", code)
	}
	if code := first.join(inv, http.StatusNotFound, nil); code != "unknown" {
		t.Errorf("the replaced invitation: %q", code)
	}
	if code := w.hello(b.Bearer).want("closed")["code"]; code != 4005 {
		t.Errorf("bearer of a replaced invitation: %v", code)
	}
	first.join(next, http.StatusOK, &a)

	w.admin(http.MethodDelete, "/v1/sessions/"+s.SID, nil, http.StatusOK, nil)
	if code := first.join(next, http.StatusGone, nil); code != "over" {
		t.Errorf("cancelled: %q", code)
	}
}

func TestInvitationWindow(t *testing.T) {
	w := start(t)
	now := time.Now().UTC()
	var early, over sessionAnswer
	with := []participant{{Role: "patient", Name: "Sam"}}
	w.admin(http.MethodPost, "/v1/sessions", sessionRequest{"room-1", now.Add(time.Hour), now.Add(2 * time.Hour), with}, http.StatusOK, &early)
	w.admin(http.MethodPost, "/v1/sessions", sessionRequest{"room-1", now.Add(-time.Hour), now.Add(700 * time.Millisecond), with}, http.StatusOK, &over)
	b := w.browser()
	if code := b.join(w.invite(early.SID, early.Participants[0].ID), http.StatusTooEarly, nil); code != "early" {
		t.Errorf("early: %q", code)
	}
	inv := w.invite(over.SID, over.Participants[0].ID)
	time.Sleep(time.Until(over.Ends) + 20*time.Millisecond)
	if code := b.join(inv, http.StatusGone, nil); code != "over" {
		t.Errorf("over: %q", code)
	}
	for name, bad := range map[string]sessionRequest{
		"unknown room":    {"room-9", now, now.Add(time.Hour), with},
		"ends first":      {"room-1", now, now.Add(-time.Second), with},
		"nobody":          {"room-1", now, now.Add(time.Hour), nil},
		"a device":        {"room-1", now, now.Add(time.Hour), []participant{{Role: "device", Name: "x"}}},
		"name of control": {"room-1", now, now.Add(time.Hour), []participant{{Role: "guest", Name: "a\u202eb"}}},
		"five people":     {"room-1", now, now.Add(time.Hour), append(append(append(with, with...), append(with, with...)...), with...)},
	} {
		if code := w.admin(http.MethodPost, "/v1/sessions", bad, http.StatusBadRequest, nil); code != "request" {
			t.Errorf("%s: %q", name, code)
		}
	}
}

// opened opens the session from the room and admits one page.
func (w *world) opened(s sessionAnswer) (room, page *peer, roomD, pageD sessions.D, token map[string]any) {
	w.t.Helper()
	room = w.room(w.box)
	room.want("sessions")
	roomD, pageD = newD(), newD()
	page = w.page(w.invite(s.SID, s.Participants[0].ID))
	if m := page.want("welcome"); m["state"] != "waiting" {
		w.t.Errorf("welcome %v", m)
	}
	page.send(map[string]any{"t": "knock", "d": hexD(pageD)})
	page.want("closed_room")
	room.send(map[string]any{"t": "open", "sid": s.SID, "d": hexD(roomD)})
	if m := room.want("opened"); m["identity"] != roomD.Identity() || m["sid"] != s.SID {
		w.t.Errorf("opened %v", m)
	}
	knock := room.want("knock")
	if knock["d"] != hexD(pageD) || knock["participant"].(map[string]any)["name"] != "Dr. Weiß" {
		w.t.Errorf("knock %v", knock)
	}
	page.want("waiting")
	page.send(map[string]any{"t": "token"})
	if m := page.want("error"); m["error"] != "not_admitted" {
		w.t.Errorf("a token for who waits: %v", m)
	}
	room.send(map[string]any{"t": "admit", "d": hexD(pageD)})
	token = page.want("admitted")
	room.want("resync")
	return room, page, roomD, pageD, token
}

func TestKnockAdmitToken(t *testing.T) {
	w := start(t)
	s := w.addSession()
	room, page, _, pageD, m := w.opened(s)
	if m["identity"] != pageD.Identity() || m["url"] != "ws"+strings.TrimPrefix(w.config.People.URL, "http")+"/sfu" {
		t.Errorf("admitted %v", m)
	}
	var claims jwt.MapClaims
	if _, _, err := jwt.NewParser().ParseUnverified(m["token"].(string), &claims); err != nil {
		t.Fatal(err)
	}
	checkClaims(t, claims, pageD.Identity())

	// The other participant waits: they get no token, send nothing into the session and hear nothing of it.
	guest := w.page(w.invite(s.SID, s.Participants[1].ID))
	guest.want("welcome")
	guestD := newD()
	guest.send(map[string]any{"t": "knock", "d": hexD(guestD)})
	guest.want("waiting")
	room.want("knock")
	if err := guest.ws.Write(t.Context(), websocket.MessageBinary, []byte("from the lobby")); err != nil {
		t.Fatal(err)
	}
	if err := room.ws.Write(t.Context(), websocket.MessageBinary, []byte("inside")); err != nil {
		t.Fatal(err)
	}
	if got := page.wantBinary(); string(got) != "inside" {
		t.Errorf("page got %q", got)
	}
	for _, f := range guest.settle() {
		if f.kind == websocket.MessageBinary || f.m["t"] == "admitted" || f.m["t"] == "token" {
			t.Errorf("who waits got %s", f.data)
		}
	}
	for _, f := range room.settle() {
		if f.kind == websocket.MessageBinary {
			t.Errorf("the room got %q from the lobby", f.data)
		}
	}
	room.send(map[string]any{"t": "refuse", "d": hexD(guestD), "reason": "not_now"})
	if m := guest.want("refused"); m["reason"] != "not_now" {
		t.Errorf("refused %v", m)
	}
	page.send(map[string]any{"t": "knock", "d": hexD(guestD)}) // a document that somebody else knocked with
	if m := page.want("error"); m["error"] != "d_taken" {
		t.Errorf("another's document: %v", m)
	}
	room.send(map[string]any{"t": "close", "reason": "done"})
	if m := page.want("ended"); m["reason"] != "done" {
		t.Errorf("ended %v", m)
	}
	guest.want("ended")
	if m := room.want("sessions"); len(m["sessions"].([]any)) != 0 {
		t.Errorf("the session is still listed: %v", m)
	}
}

func checkClaims(t *testing.T, claims jwt.MapClaims, identity string) {
	t.Helper()
	exp, err := claims.GetExpirationTime()
	if err != nil || time.Until(exp.Time) > 10*time.Minute+time.Second || time.Until(exp.Time) < 9*time.Minute {
		t.Errorf("token expires %v (%v)", exp, err)
	}
	if sub, _ := claims.GetSubject(); sub != identity {
		t.Errorf("subject %q", sub)
	}
	video := claims["video"].(map[string]any)
	allowed := map[string]bool{"roomJoin": true, "room": true, "canPublish": true, "canSubscribe": true, "canPublishData": true,
		"canPublishSources": true, "canUpdateOwnMetadata": true}
	for name, v := range video {
		if !allowed[name] {
			t.Errorf("grant %s = %v", name, v)
		}
	}
	if video["canUpdateOwnMetadata"] != false || video["roomJoin"] != true || len(video["room"].(string)) != 22 {
		t.Errorf("grants %v", video)
	}
	if sources := video["canPublishSources"].([]any); len(sources) != 2 || sources[0] != "camera" || sources[1] != "microphone" {
		t.Errorf("sources %v", sources)
	}
	for name := range claims {
		switch name {
		case "iss", "sub", "iat", "nbf", "exp", "video", "identity":
		default:
			t.Errorf("claim %s = %v", name, claims[name])
		}
	}
}

func TestRelayIsTransparentAndApart(t *testing.T) {
	w := start(t)
	s := w.addSession()
	room, page, _, _, _ := w.opened(s)
	for _, size := range []int{0, 1, 1000, sessions.MaxMessage} {
		raw := make([]byte, size)
		rand.Read(raw)
		if err := page.ws.Write(t.Context(), websocket.MessageBinary, raw); err != nil {
			t.Fatal(err)
		}
		if got := room.wantBinary(); !bytes.Equal(got, raw) {
			t.Errorf("%d bytes arrived changed", size)
		}
		if err := room.ws.Write(t.Context(), websocket.MessageBinary, raw); err != nil {
			t.Fatal(err)
		}
		if got := page.wantBinary(); !bytes.Equal(got, raw) {
			t.Errorf("%d bytes arrived changed", size)
		}
	}
	// A second room with a session of its own hears nothing.
	b2 := newBox(t)
	w.put("roster", w.clinic.roster(w.box.entry(t, "box-1", "room-1"), b2.entry(t, "box-2", "room-2")), http.StatusOK)
	room2 := w.room(b2)
	room2.want("sessions")
	room2.send(map[string]any{"t": "open", "sid": s.SID, "d": hexD(newD())})
	if m := room2.want("error"); m["error"] != "unknown_session" {
		t.Errorf("another room's session: %v", m)
	}
	if err := page.ws.Write(t.Context(), websocket.MessageBinary, []byte("x")); err != nil {
		t.Fatal(err)
	}
	room.wantBinary()
	for _, f := range room2.settle() {
		if f.kind == websocket.MessageBinary {
			t.Errorf("another room got %q", f.data)
		}
	}
	// One byte too many ends the connection.
	if err := page.ws.Write(t.Context(), websocket.MessageBinary, make([]byte, sessions.MaxMessage+1)); err != nil {
		t.Fatal(err)
	}
	page.want("closed")
	room.want("gone")
}

func TestReconnectAndResume(t *testing.T) {
	w := start(t)
	s := w.addSession()
	room := w.room(w.box)
	room.want("sessions")
	var j joinAnswer
	w.browser().join(w.invite(s.SID, s.Participants[0].ID), http.StatusOK, &j)
	page, roomD, pageD := w.hello(j.Bearer), newD(), newD()
	room.send(map[string]any{"t": "open", "sid": s.SID, "d": hexD(roomD)})
	before := room.want("opened")
	page.send(map[string]any{"t": "knock", "d": hexD(pageD)})
	room.want("knock")
	room.send(map[string]any{"t": "admit", "d": hexD(pageD)})
	page.want("admitted")

	again := w.hello(j.Bearer)
	page.want("closed")
	if m := again.want("welcome"); m["state"] != "admitted" {
		t.Errorf("welcome %v", m)
	}
	again.send(map[string]any{"t": "knock", "d": hexD(pageD)})
	again.want("admitted")
	room.want("back")
	room.want("resync")

	// The hub starts again: the admission and the LiveKit room's name stay.
	w.stop()
	w.run()
	room = w.room(w.box)
	room.want("sessions")
	room.send(map[string]any{"t": "open", "sid": s.SID, "d": hexD(roomD)})
	if got := roomOf(t, room.want("opened")); got != roomOf(t, before) {
		t.Error("resuming changed the LiveKit room")
	}
	room.want("gone")
	page = w.hello(j.Bearer)
	page.send(map[string]any{"t": "knock", "d": hexD(pageD)})
	page.want("admitted")
	room.want("back")

	// The room comes with a new document: another LiveKit room, and nobody is admitted.
	room.send(map[string]any{"t": "open", "sid": s.SID, "d": hexD(newD())})
	if got := roomOf(t, room.want("opened")); got == roomOf(t, before) {
		t.Error("a new document must have a new LiveKit room")
	}
	if m := page.want("removed"); m["reason"] != "room_restarted" {
		t.Errorf("removed %v", m)
	}
	page.send(map[string]any{"t": "token"})
	if m := page.want("error"); m["error"] != "not_admitted" {
		t.Errorf("token: %v", m)
	}
	page.send(map[string]any{"t": "knock", "d": hexD(newD())})
	room.want("knock")
	page.send(map[string]any{"t": "leave"})
	room.want("left")
	if code := w.hello(j.Bearer).want("closed")["code"]; code != 4005 {
		t.Errorf("bearer after leave: %v", code)
	}
}

func roomOf(t *testing.T, m map[string]any) string {
	t.Helper()
	var claims jwt.MapClaims
	if _, _, err := jwt.NewParser().ParseUnverified(m["token"].(string), &claims); err != nil {
		t.Fatal(err)
	}
	return claims["video"].(map[string]any)["room"].(string)
}

func TestHeadersAndOrigins(t *testing.T) {
	w := start(t)
	res, err := http.Get(w.config.CallOrigin + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	csp := res.Header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "ws"+strings.TrimPrefix(w.config.People.URL, "http")) {
		t.Errorf("CSP %q", csp)
	}
	for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	for _, origin := range []string{"", "null", "http://127.0.0.1", w.config.People.URL, w.config.CallOrigin + "/", strings.ToUpper(w.config.CallOrigin)} {
		for _, path := range []string{"/v1/relay", "/v1/join", "/sfu/rtc"} {
			req, err := http.NewRequest(http.MethodGet, w.config.People.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if origin != "" {
				req.Header.Set("Origin", origin)
			}
			if code := do(t, http.DefaultClient, req, http.StatusForbidden, nil); code != "origin" {
				t.Errorf("origin %q at %s: %q", origin, path, code)
			}
		}
	}
	var trust struct {
		OwnerRoots []document.Envelope `json:"owner_roots"`
		Roster     *document.Envelope  `json:"roster"`
		People     *document.Envelope  `json:"people"`
		Config     *document.Envelope  `json:"config"`
	}
	req, _ := http.NewRequest(http.MethodGet, w.config.People.URL+"/v1/trust", nil)
	do(t, http.DefaultClient, req, http.StatusOK, &trust)
	if len(trust.OwnerRoots) != 1 || trust.Roster == nil || trust.People != nil {
		t.Errorf("trust %+v", trust)
	}
}

func TestRateLimits(t *testing.T) {
	w := start(t)
	slow := 0
	for range 60 {
		raw := strings.NewReader(`{"invitation":"x"}`)
		req, err := http.NewRequest(http.MethodPost, w.config.People.URL+"/v1/join", raw)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Origin", w.config.CallOrigin)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusTooManyRequests {
			slow++
		}
	}
	if slow < 20 || slow > 35 {
		t.Errorf("%d of 60 guesses were slowed down", slow)
	}
	room := w.room(w.box)
	room.want("sessions")
	for range 200 {
		if room.ws.Write(t.Context(), websocket.MessageBinary, []byte("x")) != nil {
			break
		}
	}
	if code := room.want("closed")["code"]; code != 4003 {
		t.Errorf("a flood was closed with %v", code)
	}
}

func TestMediaServerKilled(t *testing.T) {
	w := start(t)
	s := w.addSession()
	room, page, _, _, _ := w.opened(s)
	pid := w.childPID()
	began := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	page.send(map[string]any{"t": "token"})
	m := page.want("token")
	// The token works: the room exists again.
	validate := "http" + strings.TrimPrefix(m["url"].(string), "ws") + "/rtc/validate?access_token=" + m["token"].(string)
	req, err := http.NewRequest(http.MethodGet, validate, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", w.config.CallOrigin)
	do(t, http.DefaultClient, req, http.StatusOK, nil)
	took := time.Since(began)
	t.Logf("kill -9 of the media server to a token that works: %v", took)
	if took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
	if now := w.childPID(); now == pid || now == 0 {
		t.Errorf("child %d, before %d", now, pid)
	}
	room.send(map[string]any{"t": "token"})
	room.want("token")
	if strings.Contains(w.log.String(), s.SID) || strings.Contains(w.log.String(), "Weiß") {
		t.Error("the log names the session or a person")
	}
}

func TestStopsWithinItsTime(t *testing.T) {
	w := start(t)
	s := w.addSession()
	w.opened(s)
	pid := w.childPID()
	began := time.Now()
	w.stop()
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the child is still there: %v", err)
	}
}
