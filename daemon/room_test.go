package daemon

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/e2ee/agreement"
	"github.com/alcove-room/alcove/daemon/session"
	"github.com/alcove-room/alcove/provisioning"
)

// deadRelay is a hub that is not there.
type deadRelay struct{}

var errDead = errors.New("no hub")

func (deadRelay) Open(context.Context, [16]byte, string) error { return errDead }
func (deadRelay) Admit(context.Context, string) error          { return errDead }
func (deadRelay) Refuse(context.Context, string, string) error { return errDead }
func (deadRelay) Remove(context.Context, string, string) error { return errDead }
func (deadRelay) Token(context.Context) error                  { return errDead }
func (deadRelay) Close(context.Context, string) error          { return errDead }
func (deadRelay) Message(context.Context, []byte) error        { return errDead }
func (nowhere) Permit(audit.Action, string) error              { return nil }
func (nowhere) Record(audit.Action, string)                    {}

type nowhere struct{}

func newSession(t testing.TB) *session.Session {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	prove, err := agreement.DeviceProver(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.New(session.Config{SID: [16]byte{1}, Label: "Room", Prove: prove, Verify: agreement.Proofs{}.Verify,
		VideoMime: "video/VP8", Width: 640, Height: 360, VideoBPS: 600_000, AudioBPS: 32_000, Relay: deadRelay{}, Ledger: nowhere{}, Sink: discard{},
		Log: slog.New(slog.DiscardHandler), Metrics: session.NewMetrics(),
		Capture: func(bool) {}, KeyFrame: func() {}, Rate: func(int) {}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestChooseSession(t *testing.T) {
	noon := time.Date(2027, 1, 1, 12, 0, 0, 0, time.UTC)
	at := func(sid string, from, to int) provisioning.SessionEntry {
		return provisioning.SessionEntry{SID: sid, Starts: noon.Add(time.Duration(from) * time.Minute), Ends: noon.Add(time.Duration(to) * time.Minute)}
	}
	for _, c := range []struct {
		name string
		all  []provisioning.SessionEntry
		over []string
		want string
	}{
		{"none", nil, nil, ""},
		{"too early", []provisioning.SessionEntry{at("a", 16, 60)}, nil, ""},
		{"just early enough", []provisioning.SessionEntry{at("a", 15, 60)}, nil, "a"},
		{"too late", []provisioning.SessionEntry{at("a", -90, -31)}, nil, ""},
		{"late, but not too late", []provisioning.SessionEntry{at("a", -90, -30)}, nil, "a"},
		{"the one before is over its time", []provisioning.SessionEntry{at("a", -60, -1), at("b", 0, 60)}, nil, "b"},
		{"in any order", []provisioning.SessionEntry{at("b", 0, 60), at("a", -60, -1)}, nil, "b"},
		{"one now, one soon", []provisioning.SessionEntry{at("soon", 10, 60), at("now", -50, 10)}, nil, "now"},
		{"two soon", []provisioning.SessionEntry{at("b", 12, 60), at("a", 5, 60)}, nil, "a"},
		{"two at once", []provisioning.SessionEntry{at("a", -50, 10), at("b", -5, 55)}, nil, "b"},
		{"no second time", []provisioning.SessionEntry{at("a", 0, 60)}, []string{"a"}, ""},
		{"the other one", []provisioning.SessionEntry{at("a", 0, 60), at("b", -1, 60)}, []string{"a"}, "b"},
	} {
		over := make(map[string]time.Time)
		for _, sid := range c.over {
			over[sid] = noon.Add(time.Hour)
		}
		got, found := chooseSession(c.all, over, noon)
		if found != (c.want != "") || got.SID != c.want {
			t.Errorf("%s: %q, want %q", c.name, got.SID, c.want)
		}
	}
}

func TestDocumentName(t *testing.T) {
	for _, label := range []string{"Room 1", strings.Repeat("é", 64), strings.Repeat("診", 64), "a\u202eb\x00c\n", "x" + strings.Repeat("😀", 64)} {
		name := documentName(label)
		if len(name) > maxDocumentName || !utf8.ValidString(name) || name == "" {
			t.Errorf("%q became %q", label, name)
		}
		if _, err := agreement.New(agreement.Config{Role: agreement.RoleDevice, Name: name,
			Prove: agreement.HubProver, Verify: agreement.Proofs{}.Verify}); err != nil {
			t.Errorf("no document can carry %q: %v", name, err)
		}
	}
}

func TestHubsWordsInTheLog(t *testing.T) {
	out := &lines{}
	r := &room{log: slog.New(slog.NewTextHandler(out, nil)), ctx: context.Background()}
	began := time.Now()
	for range 10_000 {
		r.Control(provisioning.Control{T: "error", Error: "Maria Santos\nlevel=ERROR", Message: strings.Repeat("x", 60_000)})
		r.Control(provisioning.Control{T: "error", Error: "early"})
	}
	if text := out.text(); strings.Contains(text, "Maria") || strings.Count(text, "\n") > 2+int(time.Since(began)/time.Second) {
		t.Fatalf("%d bytes: %.200s", len(text), text)
	}
}

func TestAddressesStayOutOfTheLog(t *testing.T) {
	for in, want := range map[string]string{
		`Get "https://hub.example:8443/v1?x=1": EOF`:        `Get "[address]": EOF`,
		"dial tcp 192.168.1.7:443: connection refused":      "dial tcp [address] connection refused",
		"lookup hub.clinic.example: no such host":           "lookup [address] no such host",
		"read udp [fe80::1%eth0]:50000->10.0.0.1:7: closed": "read udp [address]->[address]: closed",
		"wss://10.1.2.3/sfu failed":                         "[address] failed",
		"the key is used up":                                "the key is used up",
		"version 1.2.3":                                     "version 1.2.3",
		"/run/alcove/control.sock":                          "/run/alcove/control.sock",
	} {
		if got := redact(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	out := &lines{}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: withoutAddresses}))
	log.Info("hub lost", "err", errors.New("dial tcp 10.9.8.7:1: refused"), "n", 3)
	if text := out.text(); strings.Contains(text, "10.9.8.7") || !strings.Contains(text, "n=3") {
		t.Fatal(text)
	}
}
