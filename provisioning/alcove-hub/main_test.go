package main

import (
	"bytes"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
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
