package people

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// TestMatrix spells the whole matrix out a second time: a change of the table must be made in two places.
func TestMatrix(t *testing.T) {
	want := map[Role][]Operation{
		Anyone:    {},
		Therapist: {OwnSignIn, OwnProof, JoinSession},
		Patient:   {OwnSignIn, OwnProof, JoinSession},
		Guest:     {OwnSignIn, OwnProof, JoinSession},
		FrontDesk: {OwnSignIn, MakeSession, SetPIN, ReadPeople},
		IT:        {OwnSignIn, MakeSession, SetPIN, ReadPeople, ManagePeople, ReadDocuments},
		Auditor:   {OwnSignIn},
		Device:    {OpenSession, ReadDocuments},
	}
	everybody := []Operation{ReadTrust, UseInvitation, Relay, UseMedia, SignInOp}
	if len(want) != len(Roles()) {
		t.Fatalf("the matrix has %d roles, the table %d", len(want), len(Roles()))
	}
	for _, r := range append(Roles(), "", "Therapist", "admin") {
		_, known := want[r]
		for _, op := range append(Operations(), "", "session.*") {
			may := known && (slices.Contains(want[r], op) || slices.Contains(everybody, op))
			if got := Allowed(r, op); got != may {
				t.Errorf("Allowed(%q, %q) = %v", r, op, got)
			}
		}
	}
	if AllowedAny(nil, ReadTrust) || AllowedAny([]Role{Auditor, Guest}, ManagePeople) || !AllowedAny([]Role{Auditor, IT}, ManagePeople) {
		t.Error("AllowedAny")
	}
}

var updateRoles = flag.Bool("update-roles", false, "write docs/roles.md")

// TestRolesPage compares the published table with the one that is asked.
func TestRolesPage(t *testing.T) {
	const file = "../docs/roles.md"
	if *updateRoles {
		if err := os.WriteFile(file, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != Markdown() {
		t.Error("docs/roles.md is not the table: go test ./provisioning/hub/people -run TestRolesPage -update-roles")
	}
}

// TestTOTP uses the vectors of RFC 6238, appendix B (SHA-1).
func TestTOTP(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{
		59: "94287082", 1111111109: "07081804", 1111111111: "14050471",
		1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130",
	} {
		if got := hotp(secret, uint64(at/30), 8); got != want {
			t.Errorf("at %d: %s", at, got)
		}
		for skew, ok := range map[int64]bool{-60: false, -30: true, 0: true, 30: true, 60: false} {
			step, got := matchTOTP(secret, want[2:], time.Unix(at+skew, 0))
			if at/30*30 != at && skew == -60 { // 59 - 60 is before the first step
				continue
			}
			if got != ok || ok && step != at/30 {
				t.Errorf("at %d%+d: step %d, %v", at, skew, step, got)
			}
		}
	}
	for _, bad := range []string{"", "7081804", "07081804", " 81804", "08180a"} {
		if _, ok := matchTOTP(secret, bad, time.Unix(1111111109, 0)); ok {
			t.Errorf("%q matches", bad)
		}
	}
}

// TestGuard lets strangers do their worst to a person who has signed in before.
func TestGuard(t *testing.T) {
	g, now := newGuard(), time.Unix(1_700_000_000, 0)
	var waits []time.Duration
	for range 9 {
		if wait, ok := g.take("weiss", "browser 1", true, now); !ok {
			t.Fatalf("refused for %s after its wait", wait)
		}
		wait, ok := g.take("weiss", "browser 1", true, now)
		if !ok {
			waits = append(waits, wait)
			now = now.Add(wait)
		}
	}
	if len(waits) == 0 || waits[0] != firstWait || waits[len(waits)-1] <= waits[0] || waits[len(waits)-1] > longestWait {
		t.Errorf("waits %v", waits)
	}
	accepted := 0
	for i := range 5000 {
		if _, ok := g.take("weiss", fmt.Sprintf("address %d", i), false, now); ok {
			accepted++
		}
	}
	if accepted != strangersBurst {
		t.Errorf("strangers had %d tries", accepted)
	}
	if _, ok := g.take("weiss", "browser 2", true, now); !ok {
		t.Error("strangers lock a known browser out")
	}
	g.succeeded("weiss", "browser 1")
	if _, ok := g.take("weiss", "browser 1", true, now); !ok {
		t.Error("failures count after success")
	}
	for i := range 3 * maxTries {
		g.take(fmt.Sprint("nobody", i), "x", true, now)
	}
	if len(g.tries) > maxTries {
		t.Errorf("%d entries", len(g.tries))
	}
}

func TestCheckPIN(t *testing.T) {
	for _, bad := range []string{"", "12345", "1234567", "12345a", "000000", "123456", "987654", "１２３４５６", "-12345"} {
		if checkPIN(bad) == nil {
			t.Errorf("PIN %q is accepted", bad)
		}
	}
	for range 100 {
		pin, err := newPIN()
		if err != nil || checkPIN(pin) != nil {
			t.Fatal(pin, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	long := make([]byte, MaxName+1)
	for i := range long {
		long[i] = 'a'
	}
	for _, bad := range []string{"", string(long), "a\x00b", "a\nb", "a\u202eb", "\xff", "a\u200fb"} {
		if CheckName(bad) == nil {
			t.Errorf("CheckName(%q) accepts", bad)
		}
	}
	for _, good := range []string{"Dr. Weiß", "陳小姐", "O'Neill", "Ana María"} {
		if err := CheckName(good); err != nil {
			t.Errorf("CheckName(%q) = %v", good, err)
		}
	}
}
