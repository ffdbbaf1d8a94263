package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/signature/ed25519"
	"golang.org/x/mod/sumdb/note"
)

// key is a log's key as the keystore would give it.
type key struct {
	signer   note.Signer
	verifier note.Verifier
	text     string
}

func newKey(t testing.TB) key {
	t.Helper()
	p, err := ed25519.NewParameters(ed25519.VariantNoPrefix)
	if err != nil {
		t.Fatal(err)
	}
	m := keyset.NewManager()
	id, err := m.AddNewKeyFromParameters(&p)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SetPrimary(id); err != nil {
		t.Fatal(err)
	}
	h, err := m.Handle()
	if err != nil {
		t.Fatal(err)
	}
	s, text, err := NewSigner("alcove.example/device-1", h)
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(text)
	if err != nil {
		t.Fatal(err)
	}
	if v.KeyHash() != s.KeyHash() {
		t.Fatal("signer and verifier have different key hashes")
	}
	return key{s, v, text}
}

func (k key) config(dir string) Config {
	n := 0
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	return Config{
		Dir: dir, Signer: k.signer, Verify: k.verifier,
		Now: func() time.Time { n++; return start.Add(time.Duration(n) * time.Second) },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func entry(a Action, object string) Entry {
	return Entry{Actor: "p-7f3a", Role: "therapist", Action: a, Object: object, Outcome: OK}
}

func mustOpen(t testing.TB, c Config) *Log {
	t.Helper()
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func fill(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := l.Permit(entry(SessionStart, fmt.Sprint("s-", i))); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAppendVerifyReopen(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	l := mustOpen(t, k.config(dir))
	var earlier [][]byte
	for i := range 20 {
		fill(t, l, i, i+1)
		if err := l.Record(entry(SessionEnd, fmt.Sprint("s-", i))); err != nil {
			t.Fatal(err)
		}
		c, err := os.ReadFile(filepath.Join(dir, fileCheckpoint))
		if err != nil {
			t.Fatal(err)
		}
		earlier = append(earlier, c)
	}
	if _, err := Open(k.config(dir)); !errors.Is(err, ErrLocked) {
		t.Errorf("second writer: %v", err)
	}
	r, err := Verify(dir, k.text, earlier...)
	if err != nil {
		t.Fatal("log in use:", err)
	}
	if r.Entries != 40 || r.Unsigned != 0 || !r.Last.After(r.First) {
		t.Errorf("report %+v", r)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Permit(entry(Admit, "")); !errors.Is(err, ErrUnwritten) {
		t.Errorf("closed log permits: %v", err)
	}
	l = mustOpen(t, k.config(dir))
	if l.Tree().N != 40 {
		t.Errorf("%d entries after reopening, want 40: nothing was recovered", l.Tree().N)
	}
	fill(t, l, 20, 21)
	if _, err := Verify(dir, k.text, earlier...); err != nil {
		t.Error("after reopening:", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestClassesDecide(t *testing.T) {
	k := newKey(t)
	l := mustOpen(t, k.config(t.TempDir()))
	defer l.Close()
	seen := map[Class]int{}
	for a, class := range classes() {
		seen[class]++
		permit, record := l.Permit(entry(a, "x")), l.Record(entry(a, "x"))
		if (permit == nil) != (class != Closing) || (record == nil) != (class == Closing) {
			t.Errorf("%s: permit %v, record %v", a, permit, record)
		}
	}
	if len(seen) != 3 {
		t.Errorf("classes %v", seen)
	}
	if err := l.Permit(entry("door.open", "")); !errors.Is(err, ErrUnwritten) || !errors.Is(err, ErrClass) {
		t.Errorf("unknown action: %v", err)
	}
}

func TestEntriesHaveNoRoomForNames(t *testing.T) {
	l := mustOpen(t, newKey(t).config(t.TempDir()))
	defer l.Close()
	for _, e := range []Entry{
		{Actor: "Anna Example", Role: "therapist", Action: Admit, Outcome: OK},
		{Actor: "p-1", Role: "Dr. Example", Action: Admit, Outcome: OK},
		{Actor: "p-1", Role: "therapist", Action: Admit, Object: "Anna Example", Outcome: OK},
		{Actor: "p-1", Role: "therapist", Action: Admit, Outcome: "she said no"},
		{Actor: "p-1\n{}", Role: "therapist", Action: Admit, Outcome: OK},
		{Role: "therapist", Action: Admit, Outcome: OK},
	} {
		if err := l.Permit(e); !errors.Is(err, ErrEntry) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	if n := l.Tree().N; n != 0 {
		t.Errorf("%d entries", n)
	}
}

// Every byte of records and checkpoint matters, and so does every missing one.
func TestTamperingShows(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	l := mustOpen(t, k.config(dir))
	fill(t, l, 0, 5)
	old, err := os.ReadFile(filepath.Join(dir, fileCheckpoint))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, l, 5, 8)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	tried := map[string]int{}
	for _, name := range []string{fileRecords, fileCheckpoint} {
		path := filepath.Join(dir, name)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		refused := func(kind string, b []byte) {
			t.Helper()
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if r, err := Verify(dir, k.text); err == nil && r.Unsigned != 2 {
				t.Errorf("%s %s: verified", name, kind)
			}
			if _, err := Open(k.config(dir)); !errors.Is(err, ErrTampered) {
				t.Errorf("%s %s: opened: %v", name, kind, err)
			}
			tried[kind]++
		}
		for i := range whole {
			b := bytes.Clone(whole)
			b[i] ^= 1
			refused("flipped", b)
		}
		refused("emptied", nil)
		if name == fileRecords {
			lines := bytes.SplitAfter(whole, []byte("\n"))
			refused("last entry gone", bytes.Join(lines[:7], nil))
			refused("first entry gone", bytes.Join(lines[1:], nil))
			refused("two exchanged", bytes.Join([][]byte{lines[1], lines[0], bytes.Join(lines[2:], nil)}, nil))
			refused("two added", append(bytes.Clone(whole), bytes.Join(lines[:2], nil)...))
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("tampering:", tried)
	if err := os.Remove(filepath.Join(dir, fileCheckpoint)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(k.config(dir)); !errors.Is(err, ErrTampered) {
		t.Errorf("checkpoint removed: %v", err)
	}
	if _, err := Verify(dir, newKey(t).text); err == nil {
		t.Error("verified with another key")
	}
	// A younger log under the same key that does not continue the old one.
	other := t.TempDir()
	l = mustOpen(t, k.config(other))
	if err := l.Record(entry(Alarm, "x")); err != nil {
		t.Fatal(err)
	}
	fill(t, l, 0, 9)
	if _, err := Verify(other, k.text); err != nil {
		t.Error(err)
	}
	if _, err := Verify(other, k.text, old); !errors.Is(err, ErrTampered) {
		t.Errorf("forked history: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// The hashes are derived: any damage to them is mended and the log goes on.
func TestDamagedHashesAreMended(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	l := mustOpen(t, k.config(dir))
	fill(t, l, 0, 9)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileHashes)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for kind, b := range map[string][]byte{
		"cut": whole[:40], "empty": nil, "long": append(bytes.Clone(whole), 1, 2, 3),
		"flipped": append([]byte{whole[0] ^ 1}, whole[1:]...),
	} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := mustOpen(t, k.config(dir)).Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, whole) {
			t.Errorf("%s: not mended: %v", kind, err)
		}
	}
}

// A cut at every byte of the last entry, and between the three steps.
func TestCrashAtEveryByte(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	l := mustOpen(t, k.config(dir))
	fill(t, l, 0, 6)
	before := readAll(t, dir)
	fill(t, l, 6, 7)
	after := readAll(t, dir)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	kept := map[int64]int{}
	crash := func(records, hashes int, checkpoint []byte) {
		t.Helper()
		dir := t.TempDir()
		for name, b := range map[string][]byte{
			fileRecords: after[fileRecords][:records], fileHashes: after[fileHashes][:hashes], fileCheckpoint: checkpoint,
		} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l := mustOpen(t, k.config(dir))
		defer l.Close()
		r, err := Verify(dir, k.text, before[fileCheckpoint])
		if err != nil {
			t.Errorf("records %d, hashes %d: %v", records, hashes, err)
		}
		want := int64(6)
		if records == len(after[fileRecords]) {
			want = 7
		}
		b := readAll(t, dir)[fileRecords]
		torn := records > len(before[fileRecords])
		if want == 7 || torn { // what was repaired is in the log
			want++
			if bytes.Equal(checkpoint, after[fileCheckpoint]) {
				want--
			} else if !bytes.Contains(b, []byte(Recovered)) {
				t.Errorf("records %d: recovery is not in the log", records)
			}
		}
		if r.Entries != want {
			t.Errorf("records %d, hashes %d: %d entries, want %d", records, hashes, r.Entries, want)
		}
		kept[r.Entries]++
	}
	for n := len(before[fileRecords]); n <= len(after[fileRecords]); n++ {
		crash(n, len(before[fileHashes]), before[fileCheckpoint])
	}
	for n := len(before[fileHashes]); n <= len(after[fileHashes]); n++ {
		crash(len(after[fileRecords]), n, before[fileCheckpoint])
	}
	crash(len(after[fileRecords]), len(after[fileHashes]), after[fileCheckpoint])
	t.Log("entries after recovery:", kept)
	if len(kept) != 3 {
		t.Error("a class of crash was not tried")
	}
}

func readAll(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	out := make(map[string][]byte)
	for _, name := range []string{fileRecords, fileHashes, fileCheckpoint} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b
	}
	return out
}

func TestManyGoroutines(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	c := k.config(dir)
	c.Now = time.Now
	l := mustOpen(t, c)
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() { fill(t, l, 0, 25) })
	}
	g.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(dir, k.text); err != nil || r.Entries != 100 {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzCheckpoint(f *testing.F) {
	k := newKey(f)
	dir := f.TempDir()
	if err := mustOpen(f, k.config(dir)).Close(); err != nil {
		f.Fatal(err)
	}
	honest, err := os.ReadFile(filepath.Join(dir, fileCheckpoint))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(honest)
	f.Add([]byte("a\n1\nx\n\n— a b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := openCheckpoint(b, k.verifier)
		if err == nil && (tree.N != 0 || !bytes.Contains(b, honest[:20])) {
			t.Errorf("accepted %q", b)
		}
	})
}

func BenchmarkPermit(b *testing.B) {
	l := mustOpen(b, newKey(b).config(b.TempDir()))
	i := 0
	for b.Loop() {
		i++
		if err := l.Permit(entry(SessionStart, fmt.Sprint("s-", i))); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Error(err)
	}
}
