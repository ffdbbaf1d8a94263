package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/daemon/keystore"
	"github.com/alcove-room/alcove/provisioning"
	"github.com/alcove-room/alcove/provisioning/document"
	"github.com/alcove-room/alcove/provisioning/hub/fleet"
	"github.com/alcove-room/alcove/provisioning/hub/store"
)

// it is a person of clinic IT at a desk.
type it struct {
	t    *testing.T
	dir  string
	pass string
}

func newIT(t *testing.T) *it {
	t.Helper()
	dir := t.TempDir()
	i := &it{t: t, dir: dir, pass: filepath.Join(dir, "passphrase")}
	i.file("passphrase", "four words are good\n")
	return i
}

func (i *it) file(name, content string) string {
	i.t.Helper()
	path := filepath.Join(i.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		i.t.Fatal(err)
	}
	return path
}

func (i *it) keys() string { return filepath.Join(i.dir, "clinic") }

// run types a command and demands its exit code.
func (i *it) run(want int, args ...string) string {
	i.t.Helper()
	var out, errs bytes.Buffer
	args = append(args, "--keys", i.keys(), "--passphrase-file", i.pass)
	if code := Run(i.t.Context(), args, strings.NewReader(""), &out, &errs); code != want {
		i.t.Fatalf("alcovectl %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out.String(), errs.String())
	}
	return out.String() + errs.String()
}

// json types a command with --json and reads its answer.
func (i *it) json(v any, args ...string) {
	i.t.Helper()
	if err := document.Decode([]byte(i.run(0, append(args, "--json")...)), v); err != nil {
		i.t.Fatalf("alcovectl %v: %v", args, err)
	}
}

// testHub is the real fleet and store behind TLS, as a hub would serve them.
type testHub struct {
	fleet *fleet.Fleet
	url   string
	pin   document.Hash
}

type always struct{}

func (always) Allow(string, time.Time) bool { return true }

func newTestHub(t *testing.T) *testHub {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	ks, err := keystore.Open(filepath.Join(t.TempDir(), "keys"), log)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	pin := document.SPKIHash(ks.TLSSPKI())
	f, err := fleet.New(t.Context(), fleet.Options{
		Store: db, Log: log, Pin: pin, Loopback: true, Enrolments: always{}, Uploads: always{},
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	f.Devices(mux)
	s := httptest.NewUnstartedServer(mux)
	s.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{ks.TLSCertificate()}, ClientAuth: tls.RequestClientCert,
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return &testHub{fleet: f, url: s.URL, pin: pin}
}

func (h *testHub) trust(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.fleet.Trust(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// box is a new room that got a claim file.
func enrolBox(t *testing.T, claimFile string) (*keystore.Keystore, *provisioning.Client) {
	t.Helper()
	b, err := os.ReadFile(claimFile)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := document.ParseClaim(b)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := claim.Verify(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ks, err := keystore.Open(filepath.Join(t.TempDir(), "box"), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := provisioning.NewClient(claim.Hub, claim.HubPins, ks.TLSCertificate())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := provisioning.Enrol(t.Context(), c, claim, trust, make([]byte, document.JoinTokenSize), ks); err != nil {
		t.Fatal(err)
	}
	return ks, c
}

// From nothing to a room that the hub knows, by alcovectl alone.
func TestClinicFromNothing(t *testing.T) {
	hub, i := newTestHub(t), newIT(t)
	i.run(0, "init")
	i.run(0, "root", "create", "--clinic", "Example clinic", "--demo", "--pin", hub.pin.String())
	i.run(4, "documents", "push", "--hub", hub.url)
	hub.trust(t, filepath.Join(i.keys(), "documents", "owner-root.1.json"))
	claim := filepath.Join(i.dir, "room-1.claim")
	i.run(0, "claim", "create", "--hub", hub.url, "--room", "room-1", "--label", "Room 1", "--out", claim)
	i.run(0, "config", "sign", "--call-origin", "http://127.0.0.1:8080")
	i.run(0, "people", "sign")
	i.run(4, "enrol", "approve", claim)
	if out := i.run(0, "enrol", "list"); !strings.Contains(out, "waiting") {
		t.Error(out)
	}

	ks, client := enrolBox(t, claim)
	if out := i.run(0, "enrol", "list"); !strings.Contains(out, "asked") {
		t.Error(out)
	}
	var device document.Device
	i.json(&device, "enrol", "approve", claim)
	if !bytes.Equal(device.TLSSPKI, ks.TLSSPKI()) || !bytes.Equal(device.SignSPKI, ks.SignSPKI()) || device.Label != "Room 1" {
		t.Errorf("device %+v", device)
	}
	if _, ok := hub.fleet.Device(ks.TLSSPKI()); ok {
		t.Error("the hub knows the box before a roster was signed")
	}
	i.run(0, "roster", "sign")
	i.run(0, "documents", "push")
	if d, ok := hub.fleet.Device(ks.TLSSPKI()); !ok || d.ID != device.ID {
		t.Error("the hub does not know the box")
	}
	got, err := client.Documents(t.Context(), nil, "")
	if err != nil || len(got) != 4 {
		t.Errorf("the box got %d documents: %v", len(got), err)
	}
	if out := i.run(1, "enrol", "approve", claim); !strings.Contains(out, "used once") {
		t.Error(out)
	}
	for _, kind := range document.Types() {
		i.run(0, "documents", "get", string(kind))
	}

	i.run(0, "roster", "remove", device.ID)
	i.run(0, "roster", "sign")
	i.run(0, "documents", "push")
	if _, ok := hub.fleet.Device(ks.TLSSPKI()); ok {
		t.Error("the hub knows a revoked box")
	}
	// A new root follows, the hub takes it, and everything signed since.
	i.run(0, "root", "create", "--pin", hub.pin.String(), "--pin", strings.Repeat("ab", 32))
	i.run(0, "config", "sign")
	i.run(0, "documents", "push")
	var root document.OwnerRoot
	i.json(&root, "documents", "get", "owner-root")
	if root.Version != 2 || len(root.HubPins) != 2 || !root.Demo {
		t.Errorf("root %+v", root)
	}
}

// A hub that swaps the keys in a request, and one that answers for another.
func TestHostileHubCannotEnrol(t *testing.T) {
	hub, i := newTestHub(t), newIT(t)
	i.run(0, "init", "--root-keys", "1")
	i.run(0, "root", "create", "--clinic", "Example clinic", "--demo", "--pin", hub.pin.String())
	claim := filepath.Join(i.dir, "c.claim")
	i.run(0, "claim", "create", "--hub", hub.url, "--room", "room-1", "--out", claim)
	b, err := os.ReadFile(claim)
	if err != nil {
		t.Fatal(err)
	}
	c, err := document.ParseClaim(b)
	if err != nil {
		t.Fatal(err)
	}
	// The hub knows everything of the claim but the token.
	stolen := *c
	stolen.JoinToken = make(document.Bytes, document.JoinTokenSize)
	if b, err = json.Marshal(stolen); err != nil {
		t.Fatal(err)
	}
	enrolBox(t, i.file("stolen.claim", string(b)))
	if out := i.run(0, "enrol", "list"); !strings.Contains(out, "unproven") {
		t.Error(out)
	}
	if out := i.run(3, "enrol", "approve", claim); !strings.Contains(out, "do not approve") {
		t.Error(out)
	}
	if out := i.run(0, "roster", "show"); !strings.Contains(out, "0 devices") {
		t.Error(out)
	}
	other := newTestHub(t)
	if out := i.run(3, "enrol", "list", "--hub", other.url); !strings.Contains(out, "pinned") {
		t.Error(out)
	}
}

// Keys of several owners, kept apart, and a key that is taken away.
func TestKeysChange(t *testing.T) {
	i := newIT(t)
	i.run(0, "init")
	i.run(0, "root", "create", "--clinic", "Example clinic")
	old, err := filepath.Glob(filepath.Join(i.keys(), "keys", "config-*.json"))
	if err != nil || len(old) != 1 {
		t.Fatal(old, err)
	}
	b, err := os.ReadFile(old[0])
	if err != nil {
		t.Fatal(err)
	}
	k, err := parseKeyFile(b)
	if err != nil {
		t.Fatal(err)
	}
	i.run(0, "init", "--role", "config")
	i.run(2, "root", "create", "--drop", k.ID.String()[:8])
	i.run(0, "root", "create", "--drop", k.ID.String())
	i.run(0, "config", "sign", "--call-origin", "https://call.clinic.example")
	path := filepath.Join(i.keys(), "documents", "config.json")
	i.run(0, "inspect", path)
	e, err := readEnvelope(path)
	if err != nil {
		t.Fatal(err)
	}
	if e.Signatures[0].KeyID == k.ID {
		t.Error("signed with the key that was taken away")
	}

	// Two of three root keys leave for another stick.
	stick := filepath.Join(i.dir, "stick")
	if err := os.MkdirAll(filepath.Join(stick, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	roots, err := filepath.Glob(filepath.Join(i.keys(), "keys", "root-*.json"))
	if err != nil || len(roots) != 3 {
		t.Fatal(roots, err)
	}
	for _, p := range roots[:2] {
		if err := os.Rename(p, filepath.Join(stick, "keys", filepath.Base(p))); err != nil {
			t.Fatal(err)
		}
	}
	i.run(3, "root", "create")
	i.run(0, "root", "create", "--more-keys", stick)
	if out := i.run(0, "root", "show"); !strings.Contains(out, "version   3") || !strings.Contains(out, "2 of 3 keys") {
		t.Error(out)
	}
}

func TestNothingChangesInADryRun(t *testing.T) {
	hub, i := newTestHub(t), newIT(t)
	i.run(0, "init", "--dry-run")
	if _, err := os.Stat(i.keys()); err == nil {
		t.Fatal("init --dry-run made a folder")
	}
	i.run(0, "init", "--root-keys", "1")
	i.run(0, "root", "create", "--clinic", "Example clinic", "--demo", "--pin", hub.pin.String())
	hub.trust(t, filepath.Join(i.keys(), "documents", "owner-root.1.json"))
	i.run(0, "config", "sign", "--call-origin", "https://call.clinic.example")
	claim := filepath.Join(i.dir, "c.claim")
	i.run(0, "claim", "create", "--hub", hub.url, "--room", "room-1", "--out", claim)
	enrolBox(t, claim)
	before := tree(t, i.dir)
	for _, args := range [][]string{
		{"init", "--role", "config"}, {"root", "create"}, {"claim", "create", "--hub", hub.url, "--room", "r", "--out", filepath.Join(i.dir, "x")},
		{"enrol", "approve", claim}, {"roster", "sign"}, {"people", "sign"}, {"config", "sign"}, {"documents", "push"},
	} {
		out := i.run(0, append(args, "--dry-run")...)
		if !strings.Contains(out, "--dry-run") {
			t.Errorf("%v does not say that it was a dry run: %s", args, out)
		}
		if tree(t, i.dir) != before {
			t.Fatalf("%v --dry-run changed something", args)
		}
	}
	if got, _ := hub.fleet.Label("room-1"); got != "" {
		t.Error("the hub has a roster")
	}
	i.run(4, "documents", "get", "config")
}

// tree is everything below a folder, as one string.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		b.WriteString(path + "\x00" + string(content) + "\x00")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
