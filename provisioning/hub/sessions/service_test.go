package sessions_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
	"github.com/alcove-room/alcove/provisioning/hub/store"
)

// media is an SFU in memory.
type media struct {
	mu    sync.Mutex
	rooms map[string][]string
	fail  error
}

func (m *media) Ensure(_ context.Context, room string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if _, ok := m.rooms[room]; !ok {
		m.rooms[room] = nil
	}
	return nil
}

func (m *media) Token(room, identity string) (string, error) { return room + " " + identity, nil }

func (m *media) Identities(_ context.Context, room string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, ok := m.rooms[room]
	if !ok {
		return nil, sessions.ErrNoRoom
	}
	return slices.Clone(list), nil
}

func (m *media) Remove(_ context.Context, room, identity string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rooms[room] = slices.DeleteFunc(m.rooms[room], func(s string) bool { return s == identity })
	return nil
}

func (m *media) Delete(_ context.Context, room string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rooms, room)
	return nil
}

type directory struct{}

func (directory) Label(room string) (string, bool) { return "Room", room == "room-1" }
func (directory) Clinic() string                   { return strings.Repeat("ab", 32) }
func (directory) Demo() bool                       { return true }

type fixture struct {
	t    *testing.T
	s    *sessions.Service
	m    *media
	url  string
	stop func()
}

func start(t *testing.T, limits sessions.Limits) *fixture {
	t.Helper()
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, m: &media{rooms: make(map[string][]string)}}
	f.s, err = sessions.New(t.Context(), sessions.Options{
		Store: db, Media: f.m, Directory: directory{}, Log: slog.New(slog.DiscardHandler), Metrics: sessions.NewMetrics(),
		CallOrigin: "http://127.0.0.1:1", PeopleURL: "http://127.0.0.1:2", PageMediaURL: "ws://page", RoomMediaURL: "ws://room",
		Early: time.Minute, Overrun: time.Minute, Limits: limits, Relays: sessions.NewAddressLimit(time.Millisecond, 1000),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/page", f.s.ServePage)
	mux.HandleFunc("/room", func(w http.ResponseWriter, r *http.Request) {
		f.s.ServeRoom(w, r, "room-1", func() bool { return true })
	})
	server := httptest.NewServer(mux)
	f.url = "ws" + strings.TrimPrefix(server.URL, "http")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.s.Run(ctx) }()
	var once sync.Once
	f.stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-ended, db.Close()); err != nil {
				t.Error(err)
			}
			server.Close()
		})
	}
	t.Cleanup(f.stop)
	return f
}

func (f *fixture) dial(path string) *websocket.Conn {
	f.t.Helper()
	ws, _, err := websocket.Dial(f.t.Context(), f.url+path, &websocket.DialOptions{Subprotocols: []string{sessions.Subprotocol}})
	if err != nil {
		f.t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	f.t.Cleanup(func() { ws.CloseNow() })
	return ws
}

func (f *fixture) say(ws *websocket.Conn, m string) {
	f.t.Helper()
	if err := ws.Write(f.t.Context(), websocket.MessageText, []byte(m)); err != nil {
		f.t.Fatalf("%s: %v", m, err)
	}
}

// want reads until a text message of the type arrives.
func (f *fixture) want(ws *websocket.Conn, kind string) string {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	for {
		_, raw, err := ws.Read(ctx)
		if err != nil {
			f.t.Fatalf("wanted %s: %v", kind, err)
		}
		if strings.HasPrefix(string(raw), `{"t":"`+kind+`"`) {
			return string(raw)
		}
	}
}

// bearer makes a session that runs now, and joins it.
func (f *fixture) bearer() (sid, bearer string) {
	f.t.Helper()
	now := time.Now()
	v, err := f.s.Add(f.t.Context(), sessions.Session{Room: "room-1", Starts: now, Ends: now.Add(time.Hour),
		Participants: []sessions.Participant{{Role: people.Patient, Name: "Sam"}}})
	if err != nil {
		f.t.Fatal(err)
	}
	i, err := f.s.Invite(f.t.Context(), v.SID, v.Participants[0].ID)
	if err != nil {
		f.t.Fatal(err)
	}
	_, fragment, _ := strings.Cut(i.Link, "#")
	q, err := url.ParseQuery(fragment)
	if err != nil {
		f.t.Fatal(err)
	}
	j, err := f.s.Join(f.t.Context(), q.Get("i"), "")
	if err != nil {
		f.t.Fatal(err)
	}
	return v.SID.String(), j.Bearer
}

func d() string {
	var d sessions.D
	rand.Read(d[:])
	return d.String()
}

// members connects a room and an admitted page.
func (f *fixture) members() (room, page *websocket.Conn) {
	f.t.Helper()
	sid, bearer := f.bearer()
	room, page = f.dial("/room"), f.dial("/page")
	f.say(room, `{"t":"open","sid":"`+sid+`","d":"`+d()+`"}`)
	f.want(room, "opened")
	f.say(page, `{"t":"hello","bearer":"`+bearer+`"}`)
	mine := d()
	f.say(page, `{"t":"knock","d":"`+mine+`"}`)
	f.want(room, "knock")
	f.say(room, `{"t":"admit","d":"`+mine+`"}`)
	f.want(page, "admitted")
	return room, page
}

func unlimited() sessions.Limits {
	return sessions.Limits{MessagesPerSecond: 1e9, MessagesBurst: 1e9, BytesPerSecond: 1e12, BytesBurst: 1e9}
}

func TestSlowReaderIsClosed(t *testing.T) {
	f := start(t, unlimited())
	room, page := f.members()
	block := make([]byte, sessions.MaxMessage)
	for range 400 { // 25 MiB: more than the socket's buffers and the queue
		if err := room.Write(t.Context(), websocket.MessageBinary, block); err != nil {
			t.Fatal(err)
		}
	}
	f.want(room, "gone") // the room was never held up, and learns of it
	for {
		if _, _, err := page.Read(t.Context()); err != nil {
			return
		}
	}
}

func TestFirstMessageMustBeHello(t *testing.T) {
	f := start(t, sessions.DefaultLimits())
	for _, m := range []string{`{"t":"knock","d":"` + d() + `"}`, `{"t":"hello"}`, `{}`, `{"t":"hello","bearer":"x","n":1}`} {
		ws := f.dial("/page")
		f.say(ws, m)
		f.want(ws, "error")
		if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != 4004 {
			t.Errorf("%s: %v", m, err)
		}
	}
	if _, _, err := websocket.Dial(t.Context(), f.url+"/page", nil); err == nil {
		t.Error("a connection without the subprotocol is accepted")
	}
}

func TestMediaServerAway(t *testing.T) {
	f := start(t, sessions.DefaultLimits())
	sid, _ := f.bearer()
	f.m.mu.Lock()
	f.m.fail = errors.New("away")
	f.m.mu.Unlock()
	room := f.dial("/room")
	f.say(room, `{"t":"open","sid":"`+sid+`","d":"`+d()+`"}`)
	f.say(room, `{"t":"ping","n":1}`)
	f.want(room, "pong") // the relay works meanwhile
	// Opened anew while the first answer is waited for: the answer is about the new document.
	second := d()
	f.say(room, `{"t":"open","sid":"`+sid+`","d":"`+second+`"}`)
	f.say(room, `{"t":"ping","n":2}`)
	f.want(room, "pong")
	f.m.mu.Lock()
	f.m.fail = nil
	f.m.mu.Unlock()
	parsed, err := sessions.ParseD(second)
	if err != nil {
		t.Fatal(err)
	}
	if m := f.want(room, "opened"); !strings.Contains(m, `"identity":"`+parsed.Identity()+`"`) {
		t.Error(m)
	}
}

func TestNobodyTakesAnothersDocument(t *testing.T) {
	f := start(t, sessions.DefaultLimits())
	sid, bearer := f.bearer()
	room, page := f.dial("/room"), f.dial("/page")
	mine := d()
	f.say(room, `{"t":"open","sid":"`+sid+`","d":"`+mine+`"}`)
	f.want(room, "opened")
	f.say(page, `{"t":"hello","bearer":"`+bearer+`"}`)
	// The same identity is enough: it is the first half of the hash.
	f.say(page, `{"t":"knock","d":"`+mine[:32]+strings.Repeat("0", 32)+`"}`)
	if m := f.want(page, "error"); !strings.Contains(m, "d_taken") {
		t.Error(m)
	}
}

func TestGoroutinesEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	f := start(t, sessions.DefaultLimits())
	for range 10 {
		f.dial("/page")
		f.dial("/room")
	}
	f.members()
	f.stop()
	http.DefaultClient.CloseIdleConnections()
	var after int
	for range 100 {
		if after = runtime.NumGoroutine(); after <= before+1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("%d goroutines before, %d after\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
}
