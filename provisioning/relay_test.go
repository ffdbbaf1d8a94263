package provisioning

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// recorder is a relay's handler.
type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, s)
}
func (r *recorder) Connected()           { r.add("connected") }
func (r *recorder) Disconnected(error)   { r.add("disconnected") }
func (r *recorder) Control(c Control)    { r.add("control " + c.T) }
func (r *recorder) Message(raw []byte)   { r.add(fmt.Sprintf("message %d", len(raw))) }
func (r *recorder) has(want string) bool { return r.count(want) > 0 }
func (r *recorder) count(want string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, e := range r.events {
		if e == want {
			n++
		}
	}
	return n
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// startRelay runs a relay against a hub that does what serve says with each connection.
func startRelay(t *testing.T, serve func(context.Context, *websocket.Conn)) (*Relay, *recorder, func()) {
	t.Helper()
	hub := newTestHub(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{relayProtocol}})
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		serve(r.Context(), c)
	})
	rec := &recorder{}
	relay := NewRelay(hub.client(t, hub.key.pin()), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- relay.Run(ctx, rec) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return relay, rec, stop
}

func TestRelayCarriesBothWays(t *testing.T) {
	got := make(chan string, 10)
	relay, rec, stop := startRelay(t, func(ctx context.Context, c *websocket.Conn) {
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"t":"resync"}`))
		_ = c.Write(ctx, websocket.MessageBinary, make([]byte, maxRelayMessage))
		sessions := `{"t":"sessions","sessions":[` + strings.Repeat(`{"sid":"x","starts":"2027-01-01T00:00:00Z","ends":"2027-01-01T01:00:00Z","participants":[]},`, 2000)
		_ = c.Write(ctx, websocket.MessageText, []byte(strings.TrimSuffix(sessions, ",")+`]}`))
		for {
			kind, raw, err := c.Read(ctx)
			if err != nil {
				return
			}
			got <- fmt.Sprint(kind, " ", len(raw))
		}
	})
	eventually(t, "control, a large message and a long list", func() bool {
		return rec.has("control resync") && rec.has(fmt.Sprintf("message %d", maxRelayMessage)) && rec.has("control sessions")
	})
	if err := relay.SendMessage(t.Context(), make([]byte, maxRelayMessage)); err != nil {
		t.Fatal(err)
	}
	if err := relay.SendMessage(t.Context(), make([]byte, maxRelayMessage+1)); err == nil {
		t.Fatal("a message that is too large was sent")
	}
	if err := relay.Send(t.Context(), Control{T: "open", SID: "s", D: "d"}); err != nil {
		t.Fatal(err)
	}
	if a, b := <-got, <-got; a != fmt.Sprint(websocket.MessageBinary, " ", maxRelayMessage) || b != fmt.Sprint(websocket.MessageText, " ", len(`{"t":"open","sid":"s","d":"d"}`)) {
		t.Fatal(a, b)
	}
	stop()
	if rec.count("connected") != rec.count("disconnected") {
		t.Fatalf("%v", rec.events)
	}
	if err := relay.Send(t.Context(), Control{T: "ping"}); !errors.Is(err, ErrNotConnected) {
		t.Fatal(err)
	}
}

func TestRelayDialsAgain(t *testing.T) {
	_, rec, _ := startRelay(t, func(ctx context.Context, c *websocket.Conn) {
		_ = c.Write(ctx, websocket.MessageText, []byte(`{"t":"resync"}`))
	})
	eventually(t, "three connections", func() bool { return rec.count("connected") >= 3 })
}

func TestRelayDropsBadMessages(t *testing.T) {
	for name, raw := range map[string][]byte{
		"unknown name": []byte(`{"t":"resync","x":1}`), "no JSON": []byte("x"), "duplicate": []byte(`{"t":"a","t":"b"}`), "case": []byte(`{"T":"a"}`),
	} {
		t.Run(name, func(t *testing.T) {
			_, rec, _ := startRelay(t, func(ctx context.Context, c *websocket.Conn) {
				_ = c.Write(ctx, websocket.MessageText, raw)
				_, _, _ = c.Read(ctx)
			})
			eventually(t, "the connection is dropped", func() bool { return rec.has("disconnected") })
			rec.mu.Lock()
			defer rec.mu.Unlock()
			if slices.ContainsFunc(rec.events, func(s string) bool { return strings.HasPrefix(s, "control") }) {
				t.Fatalf("%v", rec.events)
			}
		})
	}
	t.Run("too large", func(t *testing.T) {
		_, rec, _ := startRelay(t, func(ctx context.Context, c *websocket.Conn) {
			_ = c.Write(ctx, websocket.MessageBinary, make([]byte, maxRelayMessage+1))
			_, _, _ = c.Read(ctx)
		})
		eventually(t, "the connection is dropped", func() bool { return rec.has("disconnected") })
		if rec.has(fmt.Sprintf("message %d", maxRelayMessage+1)) {
			t.Fatal("delivered")
		}
	})
}

// A hub that is there but does not answer is found within probeLost, long before TCP would.
func TestRelayProbe(t *testing.T) {
	began := time.Now()
	_, rec, _ := startRelay(t, func(ctx context.Context, _ *websocket.Conn) { <-ctx.Done() }) // reads nothing, so answers no ping
	eventually(t, "lost", func() bool { return rec.has("disconnected") })
	if took := time.Since(began); took < probeLost || took > probeLost+3*probeEvery {
		t.Fatalf("after %v", took)
	}
}

func TestRelayWantsItsProtocol(t *testing.T) {
	hub := newTestHub(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err == nil {
			defer c.CloseNow()
			_, _, _ = c.Read(r.Context())
		}
	})
	rec := &recorder{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = NewRelay(hub.client(t, hub.key.pin()), slog.New(slog.DiscardHandler)).Run(ctx, rec)
	if rec.has("connected") || !rec.has("disconnected") {
		t.Fatalf("%v", rec.events)
	}
}
