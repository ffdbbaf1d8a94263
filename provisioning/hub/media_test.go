package hub

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/auth"
	lksdk "github.com/livekit/server-sdk-go/v2"

	"github.com/alcove-room/alcove/provisioning/hub/sessions"
	"github.com/alcove-room/alcove/provisioning/hub/sfu"
)

// external runs a LiveKit that the hub knows by URL, key and secret, so that the test can make tokens of its own, as
// somebody who stole the secret could.
func external(t *testing.T) sfu.Config {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := sfu.NewConfig(netip.MustParseAddr("127.0.0.1"), freePort(t, "tcp"), freePort(t, "udp"), 0)
	up := make(chan struct{})
	s, err := sfu.NewSupervisor(c, []string{exe, "sfu"}, slog.New(slog.DiscardHandler), func() { close(up) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-up:
	case <-time.After(20 * time.Second):
		t.Fatal("LiveKit does not start")
	}
	return c
}

// enter joins a LiveKit room; gone is closed when the server throws the participant out.
func enter(t *testing.T, url, token string) (room *lksdk.Room, gone chan struct{}) {
	t.Helper()
	gone = make(chan struct{})
	cb := lksdk.NewRoomCallback()
	cb.OnDisconnected = func() { close(gone) }
	room, err := lksdk.ConnectToRoomWithToken(url, token, cb)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(room.Disconnect)
	return room, gone
}

func leaves(t *testing.T, who string, gone chan struct{}) {
	t.Helper()
	began := time.Now()
	select {
	case <-gone:
		t.Logf("%s was out after %v", who, time.Since(began))
	case <-time.After(6 * time.Second):
		t.Errorf("%s is still in", who)
	}
}

func TestSweep(t *testing.T) {
	live := external(t)
	url := "ws://127.0.0.1:" + strconv.Itoa(live.SignalPort)
	w := start(t, func(c *Config) {
		c.LiveKit = LiveKit{URL: url, Key: live.Key, Secret: live.Secret}
	})
	room, page, roomD, pageD, admitted := w.opened(w.addSession())
	if admitted["url"] != url {
		t.Errorf("url %v", admitted["url"])
	}
	name := roomOf(t, admitted)
	stranger := func(identity string, hidden bool) string {
		token, err := auth.NewAccessToken(live.Key, live.Secret).SetIdentity(identity).
			SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: name, Hidden: hidden}).ToJWT()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	_, memberGone := enter(t, url, admitted["token"].(string))
	_, hidden := enter(t, url, stranger("listener", true))
	_, lookalike := enter(t, url, stranger(pageD.Identity()+"x", false))
	leaves(t, "a hidden participant", hidden)
	leaves(t, "a stranger", lookalike)
	select {
	case <-memberGone:
		t.Fatal("the admitted page was swept")
	case <-time.After(2500 * time.Millisecond): // one more sweep
	}
	room.send(map[string]any{"t": "remove", "d": hexD(pageD), "reason": "asked_to_leave"})
	page.want("removed")
	leaves(t, "the removed page", memberGone)
	// Its token is still valid for LiveKit; the sweep is what keeps it out.
	_, back := enter(t, url, admitted["token"].(string))
	leaves(t, "the removed page that came back", back)
	_ = roomD

	// auto_create is off: a token for another room opens nothing.
	token, err := auth.NewAccessToken(live.Key, live.Secret).SetIdentity("x").
		SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: "elsewhere"}).ToJWT()
	if err != nil {
		t.Fatal(err)
	}
	if r, err := lksdk.ConnectToRoomWithToken(url, token, lksdk.NewRoomCallback()); err == nil {
		r.Disconnect()
		t.Error("a room was made by joining it")
	}
	// The end of the session ends the LiveKit room.
	client := sfu.NewClient(mustURL(t, url), live.Key, live.Secret)
	room.send(map[string]any{"t": "close", "reason": "done"})
	page.want("ended")
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if _, err := client.Identities(t.Context(), name); err == sessions.ErrNoRoom {
			break
		}
		if time.Since(began) > 5*time.Second {
			t.Fatal("the LiveKit room outlives the session")
		}
	}
	// With an external LiveKit there is no proxy.
	req, err := http.NewRequest(http.MethodGet, w.config.People.URL+"/sfu/rtc", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", w.config.CallOrigin)
	do(t, http.DefaultClient, req, http.StatusNotFound, nil)
}

// TestSignallingThroughTheListeners opens LiveKit's WebSocket on both listeners and reads its first message.
func TestSignallingThroughTheListeners(t *testing.T) {
	w := start(t)
	room, _, _, _, admitted := w.opened(w.addSession())
	room.send(map[string]any{"t": "token"})
	own := room.want("token")
	for _, v := range []struct {
		m      map[string]any
		client *http.Client
		origin string
	}{{admitted, nil, w.config.CallOrigin}, {own, w.device(w.box), ""}} {
		o := &websocket.DialOptions{HTTPClient: v.client, HTTPHeader: http.Header{}}
		if v.origin != "" {
			o.HTTPHeader.Set("Origin", v.origin)
		}
		address := v.m["url"].(string) + "/rtc?protocol=15&sdk=go&version=2.0.0&access_token=" + v.m["token"].(string)
		ws, _, err := websocket.Dial(t.Context(), address, o)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		kind, raw, err := ws.Read(ctx)
		cancel()
		if err != nil || kind != websocket.MessageBinary || !strings.Contains(string(raw), v.m["identity"].(string)) {
			t.Errorf("first message: %v, %d bytes, %v", kind, len(raw), err)
		}
		ws.CloseNow()
	}
}
