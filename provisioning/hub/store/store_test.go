package store

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/alcove-room/alcove/provisioning/hub/fleet"
	"github.com/alcove-room/alcove/provisioning/hub/people"
	"github.com/alcove-room/alcove/provisioning/hub/sessions"
)

func open(t *testing.T) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.sqlite")
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func add(t *testing.T, s *Store) sessions.Session {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	v := sessions.Session{SID: sessions.SID{1}, Room: "r", Starts: now, Ends: now.Add(time.Hour),
		Participants: []sessions.Participant{{ID: "a", Role: people.Therapist, Name: "A"}, {ID: "b", Role: people.Guest, Name: "B"}}}
	if err := s.AddSession(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestFirstRelease opens a database as the first release wrote it, with a session in it.
func TestFirstRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.sqlite")
	first, err := migrations.ReadFile("migrations/0001_first.sql")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(string(first) + `PRAGMA user_version = 1;
		INSERT INTO sessions (sid, room, starts, ends, created) VALUES (zeroblob(16), 'r', 1, 2, 1);
		INSERT INTO participants (id, sid, place, role, name) VALUES ('p', zeroblob(16), 0, 'patient', 'Sam');`)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, err := s.Session(t.Context(), sessions.SID{})
	if err != nil || len(v.Participants) != 1 || v.Participants[0].Name != "Sam" {
		t.Errorf("%+v, %v", v, err)
	}
	p := people.Person{Subject: "sam", Handle: make([]byte, 32), Name: "Sam", Roles: []people.Role{people.Patient}}
	if err := errors.Join(s.AddPerson(t.Context(), p), s.SetVisit(t.Context(), "p", "sam")); err != nil {
		t.Error(err)
	}
}

// TestOneWinner uses one invitation from many browsers at once.
func TestOneWinner(t *testing.T) {
	s, _ := open(t)
	v := add(t, s)
	inv := sessions.HashOf("invitation")
	if err := s.SetInvitation(t.Context(), v.SID, "a", inv, time.Now()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	won := 0
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			id := string(rune('a' + i))
			err := s.UseInvitation(t.Context(), inv, sessions.HashOf("browser"+id), sessions.HashOf("bearer"+id), time.Now())
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, sessions.ErrUsed) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("%d browsers used one invitation", won)
	}
}

// TestNoTokenIsStored looks for the secrets in the database's files.
func TestNoTokenIsStored(t *testing.T) {
	s, path := open(t)
	v := add(t, s)
	secrets := []string{"invitation-in-clear", "browser-in-clear", "bearer-in-clear", "claim-in-clear"}
	if err := s.SetInvitation(t.Context(), v.SID, "a", sessions.HashOf(secrets[0]), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.UseInvitation(t.Context(), sessions.HashOf(secrets[0]), sessions.HashOf(secrets[1]), sessions.HashOf(secrets[2]), time.Now()); err != nil {
		t.Fatal(err)
	}
	e := fleet.Enrolment{TLSKey: []byte{1}, SignKey: []byte{2}, Nonce: []byte{3}, Proof: []byte{4}, Received: time.Now()}
	if err := s.AddEnrolment(t.Context(), fleet.ClaimOf(secrets[3]), e); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, path + "-wal"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds %s", filepath.Base(file), secret)
			}
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", filepath.Base(file), info.Mode(), err)
		}
	}
}

func TestOpenings(t *testing.T) {
	s, _ := open(t)
	v := add(t, s)
	now := time.Now()
	for _, o := range []sessions.Opening{{MediaRoom: "one", SID: v.SID, D: sessions.D{1}}, {MediaRoom: "two", SID: v.SID, D: sessions.D{2}}} {
		if err := s.Open(t.Context(), o, now); err != nil {
			t.Fatal(err)
		}
		for _, a := range []sessions.Admission{{D: sessions.D{9}, Participant: "a"}, {D: sessions.D{8}, Participant: "a"}, {D: sessions.D{7}, Participant: "b"}} {
			if err := s.Admit(t.Context(), o.MediaRoom, a, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Unadmit(t.Context(), "two", sessions.D{7}); err != nil {
		t.Fatal(err)
	}
	list, err := s.Openings(t.Context())
	if err != nil || len(list) != 1 || list[0].MediaRoom != "two" || len(list[0].Admitted) != 1 || list[0].Admitted[0].D != (sessions.D{8}) {
		t.Fatalf("openings %+v, %v", list, err)
	}
	closed, err := s.ClosedRooms(t.Context())
	if err != nil || len(closed) != 1 || closed[0] != "one" {
		t.Errorf("closed %v, %v", closed, err)
	}
	if err := s.EndSession(t.Context(), v.SID, now, "done"); err != nil {
		t.Fatal(err)
	}
	if err := s.EndSession(t.Context(), v.SID, now, "again"); err != nil {
		t.Fatal(err)
	}
	got, err := s.Session(t.Context(), v.SID)
	if err != nil || got.Reason != "done" || got.Ended.IsZero() {
		t.Errorf("ended %+v, %v", got, err)
	}
	for _, room := range []string{"one", "two"} {
		if err := s.ForgetRoom(t.Context(), room); err != nil {
			t.Fatal(err)
		}
	}
	if closed, err := s.ClosedRooms(t.Context()); err != nil || len(closed) != 0 {
		t.Errorf("closed %v, %v", closed, err)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	s, path := open(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "PRAGMA user_version = 999"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v", err)
	}
}
