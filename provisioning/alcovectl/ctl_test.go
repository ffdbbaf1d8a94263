package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"golang.org/x/mod/sumdb/note"

	"github.com/alcove-room/alcove/daemon/audit"
	"github.com/alcove-room/alcove/daemon/keystore"
	"github.com/alcove-room/alcove/provisioning/document"
)

// Every verb says what it does, with an example that names a verb that exists.
func TestEveryVerbHasHelp(t *testing.T) {
	root := (&desk{}).command()
	n := 0
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		n++
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s: short, long or example is missing", c.CommandPath())
		}
		for _, line := range strings.Split(c.Example, "\n") {
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "alcovectl" {
				t.Errorf("%s: example %q", c.CommandPath(), line)
				continue
			}
			found, _, err := root.Find(words[1:])
			if err != nil || found == root {
				t.Errorf("%s: example %q names no verb: %v", c.CommandPath(), line, err)
			}
			for _, w := range words {
				name, isFlag := strings.CutPrefix(w, "--")
				if isFlag && name != "help" && found.Flags().Lookup(name) == nil && found.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: example uses --%s, which %s does not have", c.CommandPath(), name, found.CommandPath())
				}
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if n < 25 {
		t.Errorf("only %d commands", n)
	}
}

func TestUsageErrors(t *testing.T) {
	i := newIT(t)
	for _, args := range [][]string{
		{}, {"bogus"}, {"root"}, {"root", "bogus"}, {"root", "create", "extra"}, {"inspect"}, {"roster", "sign", "--bogus"},
		{"roster", "remove"}, {"claim", "create"}, {"documents", "get"}, {"audit", "verify", "x"}, {"init", "--role", "bogus"},
		{"init", "--root-keys", "0"},
	} {
		i.run(exitUsage, args...)
	}
	i.run(exitFailed, "root", "show")
	i.run(0, "help")
}

func TestPassphrases(t *testing.T) {
	i := newIT(t)
	right := i.pass
	i.pass = i.file("short", "short\n")
	i.run(1, "init")
	i.pass = i.file("empty", "")
	i.run(1, "init")
	i.pass = filepath.Join(i.dir, "missing")
	i.run(1, "init")
	i.pass = ""
	i.run(exitUsage, "init") // nobody to ask
	i.pass = right
	i.run(0, "init", "--root-keys", "1")
	i.run(1, "init") // never over existing keys
	i.pass = i.file("wrong", "five words are even better\n")
	if out := i.run(1, "root", "create", "--clinic", "x"); !strings.Contains(out, "passphrase is wrong") {
		t.Error(out)
	}
	i.run(1, "init", "--role", "config")
}

// No key and no passphrase can be read in the folder, and only its owner can.
func TestKeysAreSealed(t *testing.T) {
	i := newIT(t)
	i.run(0, "init", "--root-keys", "1")
	paths, err := filepath.Glob(filepath.Join(i.keys(), "keys", "*"))
	if err != nil || len(paths) != 4 {
		t.Fatal(paths, err)
	}
	for _, p := range append(paths, filepath.Join(i.keys(), "state.json")) {
		st, err := os.Stat(p)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", p, st.Mode(), err)
		}
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	honest, err := parseKeyFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(honest.Keyset), "PrivateKey") {
		t.Error("the keyset is in the clear")
	}
	l := newLock([]byte("four words are good"))
	if _, err := l.open(honest); err != nil {
		t.Fatal(err)
	}
	other, err := l.sealKey("config", honest.KDF)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*keyFile){
		"role":         func(f *keyFile) { f.Role = "root" },
		"id":           func(f *keyFile) { f.ID = other.ID },
		"keyset":       func(f *keyFile) { f.Keyset = other.Keyset },
		"flipped":      func(f *keyFile) { f.Keyset = append([]byte{f.Keyset[0] ^ 1}, f.Keyset[1:]...) },
		"weak work":    func(f *keyFile) { f.KDF.N = 1024 },
		"endless work": func(f *keyFile) { f.KDF.N = 1 << 30 },
		"other work":   func(f *keyFile) { f.KDF.N *= 2 },
		"salt":         func(f *keyFile) { f.KDF.Salt = f.KDF.Salt[1:] },
	} {
		f := *other
		if name == "role" || name == "id" || name == "keyset" {
			f = *honest
		}
		change(&f)
		if _, err := l.open(&f); err == nil {
			t.Errorf("%s changed: opened", name)
		}
	}
}

func TestInspectRefusesAndHides(t *testing.T) {
	i := newIT(t)
	i.run(0, "init", "--root-keys", "1")
	i.run(0, "root", "create", "--clinic", "Example clinic", "--pin", strings.Repeat("ab", 32))
	i.run(0, "roster", "sign")
	path := filepath.Join(i.keys(), "documents", "roster.json")
	if out := i.run(0, "inspect", path); !strings.Contains(out, "verified with") {
		t.Error(out)
	}
	e, err := readEnvelope(path)
	if err != nil {
		t.Fatal(err)
	}
	e.Payload = document.Bytes(strings.Replace(string(e.Payload), `"serial":1`, `"serial":7`, 1))
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	i.run(exitRefused, "inspect", i.file("tampered.json", string(b)))
	i.run(1, "inspect", i.file("nothing", "{}"))

	claim := filepath.Join(i.dir, "c.claim")
	i.run(0, "claim", "create", "--hub", "https://hub.example", "--room", "room-1", "--out", claim)
	if b, err = os.ReadFile(claim); err != nil {
		t.Fatal(err)
	}
	c, err := document.ParseClaim(b)
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.JoinToken.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{i.run(0, "inspect", claim), i.run(0, "inspect", claim, "--json")} {
		if strings.Contains(out, string(token)) || !strings.Contains(out, c.ClaimID) {
			t.Error(out)
		}
	}
	// Pins that the owner root does not vouch for, and hubs in the clear, are not put in a claim.
	i.run(1, "claim", "create", "--hub", "https://hub.example", "--pin", strings.Repeat("cd", 32), "--room", "r", "--out", claim)
	i.run(1, "claim", "create", "--hub", "http://hub.example", "--room", "r", "--out", claim)
}

func TestRosterByHand(t *testing.T) {
	i := newIT(t)
	i.run(0, "init", "--root-keys", "1")
	i.run(1, "roster", "sign") // no owner root yet
	i.run(0, "root", "create", "--clinic", "Example clinic")
	ks, err := keystore.Open(filepath.Join(i.dir, "box"), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	tlsKey, signKey := i.file("tls", string(ks.TLSSPKI())), i.file("sign", string(ks.SignSPKI()))
	add := []string{"roster", "add", "--tls-key", tlsKey, "--sign-key", signKey, "--room"}
	i.run(1, append(add, "Room 1")...)
	i.run(0, append(add, "room-1")...)
	i.run(0, append(add, "room-1", "--label", "Room 1")...) // the same box again
	i.run(1, "roster", "add", "--tls-key", signKey, "--sign-key", tlsKey, "--room", "room-1")
	i.run(1, "roster", "add", "--tls-key", tlsKey, "--sign-key", i.pass, "--room", "room-2")
	var d rosterDraft
	i.json(&d, "roster", "show")
	if len(d.Devices) != 1 || d.Devices[0].Label != "Room 1" {
		t.Errorf("%+v", d)
	}
	i.run(1, "roster", "remove", "d-unknown")
	i.run(0, "roster", "sign", "--out", filepath.Join(i.dir, "copy.json"))
	i.run(0, "inspect", filepath.Join(i.dir, "copy.json"))
}

func TestPeopleAndConfigFiles(t *testing.T) {
	i := newIT(t)
	i.run(0, "init", "--root-keys", "1")
	i.run(0, "root", "create", "--clinic", "Example clinic")
	people := i.file("people.json", `{"persons":[{"pseudonym":"p-1","roles":["therapist"],"credentials":[]}]}`)
	i.run(0, "people", "sign", people)
	i.run(0, "people", "sign") // the same again, with a new serial
	out := i.run(0, "inspect", filepath.Join(i.keys(), "documents", "people.json"))
	if !strings.Contains(out, `"p-1"`) || !strings.Contains(out, "people 1.2") {
		t.Error(out)
	}
	i.run(1, "people", "sign", i.file("bad.json", `{"persons":[],"Persons":[]}`))
	i.run(1, "people", "sign", i.file("role.json", `{"persons":[{"pseudonym":"p-1","roles":["root"],"credentials":[]}]}`))
	i.run(1, "config", "sign") // no call origin
	var body configBody
	i.json(&body, "config", "sign", "--call-origin", "https://call.clinic.example", "--dry-run")
	body.Crisis.Line = "112"
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	i.run(0, "config", "sign", i.file("config.json", string(b)))
	i.run(0, "config", "sign", "--target", "d-1", i.file("config.json", string(b)))
	if out := i.run(0, "inspect", filepath.Join(i.keys(), "documents", "config.d-1.json")); !strings.Contains(out, `"112"`) {
		t.Error(out)
	}
	i.run(1, "config", "sign", i.file("part.json", `{"call_origin":"https://call.clinic.example"}`)) // never a patch
}

func TestAuditVerify(t *testing.T) {
	i := newIT(t)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	ks, err := keystore.Open(filepath.Join(i.dir, "box"), log)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ks.Keyset("audit", &p)
	if err != nil {
		t.Fatal(err)
	}
	signer, key, err := audit.NewSigner("alcove.example/room-1", h)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(i.dir, "audit")
	l, err := audit.Open(audit.Config{Dir: dir, Signer: signer, Verify: v, Now: time.Now, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Permit(audit.Entry{Actor: "p-1", Role: "therapist", Action: audit.SessionStart, Object: "s-1", Outcome: audit.OK}); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	checkpoint, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	old := i.file("old", string(checkpoint))
	if out := i.run(0, "audit", "verify", dir, "--key", key, "--earlier", old); !strings.Contains(out, "1 entries") {
		t.Error(out)
	}
	i.run(0, "audit", "verify", dir, "--key", i.file("key", key+"\n"))
	i.run(1, "audit", "verify", dir, "--key", "nonsense")
	records := filepath.Join(dir, "records")
	b, err := os.ReadFile(records)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(records, []byte(strings.Replace(string(b), "p-1", "p-2", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	i.run(exitRefused, "audit", "verify", dir, "--key", key)
}
