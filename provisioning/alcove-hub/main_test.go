package main

import (
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/store"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := command()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestInitAndPin(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	pin, err := run(t, "init", "--state", state)
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{64}\n$`).MatchString(pin) {
		t.Fatalf("init: %q, %v", pin, err)
	}
	if _, err := run(t, "init", "--state", state); err == nil {
		t.Error("init overwrites a key")
	}
	if again, err := run(t, "pin", "--state", state); err != nil || again != pin {
		t.Errorf("pin: %q, %v", again, err)
	}
}

func TestHelpNamesEveryVerb(t *testing.T) {
	out, err := run(t, "session", "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"add", "list", "cancel", "invite"} {
		if !strings.Contains(out, "  "+verb) {
			t.Errorf("session --help lacks %s", verb)
		}
	}
	if out, err = run(t, "person", "--help"); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"add", "list", "remove", "link", "totp", "recovery", "pin", "visit"} {
		if !strings.Contains(out, "  "+verb) {
			t.Errorf("person --help lacks %s", verb)
		}
	}
	if out, err = run(t, "--help"); err != nil || strings.Contains(out, "  sfu") {
		t.Errorf("the child is no verb for people: %v", err)
	}
}

func TestWithoutAHub(t *testing.T) {
	_, err := run(t, "session", "list", "--socket", filepath.Join(t.TempDir(), "none.sock"))
	if err == nil || !strings.Contains(err.Error(), "is alcove-hub serve running") {
		t.Errorf("no hub: %v", err)
	}
}

// TestPerson runs the verbs against the hub's own handlers for people, on a socket.
func TestPerson(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(t.Context(), filepath.Join(dir, "hub.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s, err := people.New(people.Options{Store: db, Log: slog.New(slog.DiscardHandler), CallOrigin: "https://call.clinic.example"})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: people.Gate(s.DeskRoutes(), func(*http.Request) (people.Identity, error) {
		return people.Identity{Roles: []people.Role{people.FrontDesk, people.IT}}, nil
	}, slog.New(slog.DiscardHandler))}
	go func() { _ = server.Serve(l) }() // ends with Close
	defer server.Close()
	person := func(want string, args ...string) {
		t.Helper()
		out, err := run(t, append(append([]string{"person"}, args...), "--socket", socket)...)
		if err != nil {
			out = err.Error()
		}
		if !regexp.MustCompile("(?s)^" + want + "\n?$").MatchString(out) {
			t.Errorf("person %v: %q", args, out)
		}
	}
	person("Added weiss\\.", "add", "weiss", "--name", "Dr. Weiss", "--role", "therapist", "--role", "it")
	person("There is a person with this pseudonym already\\.", "add", "weiss", "--name", "W", "--role", "it")
	person(".*role \"device\" is unknown.*", "add", "box", "--name", "W", "--role", "device")
	person("Added sam\\.", "add", "sam", "--name", "Sam", "--role", "patient")
	person("[A-Za-z0-9_-]{43}\nIt registers one passkey.*", "link", "weiss")
	person("otpauth://totp/Alcove:weiss\\?.*", "totp", "weiss")
	person("([A-Z2-7]{4}-){3}[A-Z2-7]{4}\n.*", "recovery", "weiss")
	person("[0-9]{6}", "pin", "sam")
	person(".*only patients have a PIN", "pin", "weiss")
	person("There is no such person.*", "visit", "sam", "nobody")
	person(".*\nsam  +Sam .*set\nweiss +Dr. Weiss +therapist,it +yes +none", "list")
	person("Removed weiss.*", "remove", "weiss")
	person("There is no such person.*", "remove", "weiss")
}

func TestParseStart(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 30, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"now":                  "2026-11-21T10:30:00+01:00",
		"15:00":                "2026-11-21T15:00:00+01:00",
		"2026-11-23 15:00":     "2026-11-23T15:00:00+01:00",
		"2026-11-23T15:00:00Z": "2026-11-23T15:00:00Z",
	} {
		got, err := parseStart(text, now)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if _, err := parseStart("tomorrow", now); err == nil {
		t.Error("tomorrow is accepted")
	}
}
