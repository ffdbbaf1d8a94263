package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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

// faulty is the real disk with scripted faults.
type faulty struct {
	directory
	mu    sync.Mutex
	fails func(op string) fault
	count map[string]int
}

type fault int

const (
	works fault = iota
	failed
	persisted // reports failure, but did it
	torn      // half of it
)

var errDisk = fmt.Errorf("scripted: %w", syscall.EIO)

func (f *faulty) next(op string) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind := works
	if f.fails != nil {
		kind = f.fails(op)
	}
	if kind != works {
		f.count[fmt.Sprint(op, " ", [...]string{"", "failed", "persisted", "torn"}[kind])]++
	}
	return kind
}

func (f *faulty) do(op string, whole, half func() error) error {
	switch f.next(op) {
	case works:
		return whole()
	case persisted:
		return errors.Join(whole(), errDisk)
	case torn:
		return errors.Join(half(), errDisk)
	}
	return errDisk
}

func nothing() error { return nil }

func (f *faulty) open(name string) (file, error) {
	if f.next("open") != works {
		return nil, errDisk
	}
	under, err := f.directory.open(name)
	return &faultyFile{under, f, name}, err
}

func (f *faulty) write(name string, b []byte) error {
	return f.do("write "+name, func() error { return f.directory.write(name, b) }, nothing)
}

func (f *faulty) reserve(name string, n int64) error {
	return f.do("reserve", func() error { return f.directory.reserve(name, n) },
		func() error { return f.directory.reserve(name, n/2) })
}

func (f *faulty) remove(name string) error {
	return f.do("remove", func() error { return f.directory.remove(name) }, nothing)
}

type faultyFile struct {
	file
	f    *faulty
	name string
}

func (f *faultyFile) append(p []byte) error {
	return f.f.do("append "+f.name, func() error { return f.file.append(p) },
		func() error { return f.file.append(p[:len(p)/2]) })
}

func (f *faultyFile) truncate(n int64) error {
	return f.f.do("truncate", func() error { return f.file.truncate(n) }, nothing)
}

// After every kind of fault in every operation: what was permitted is in the
// log, what was closed is in the log in the end, the log verifies at each step,
// and nothing stands there twice.
func TestFaults(t *testing.T) {
	k := newKey(t)
	count := map[string]int{}
	ops := []string{"append records", "append hashes", "write checkpoint", "open", "truncate", "reserve", "remove"}
	for _, op := range ops {
		for _, kind := range []fault{failed, persisted, torn} {
			for _, times := range []int{1, 2, 5} {
				name := fmt.Sprintf("%s/%d/%d", op, kind, times)
				dir := t.TempDir()
				disk := &faulty{directory: directory(dir), count: count}
				c := k.config(dir)
				l, err := open(c, disk)
				if err != nil {
					t.Fatal(err)
				}
				left, removed := times, false
				disk.fails = func(at string) fault {
					removed = removed || at == "remove"
					// A truncate or an open happens only in a recovery, so
					// something before must have failed.
					if (op == "truncate" || op == "open") && at == "append records" && left == times {
						return torn
					}
					if op == "remove" && strings.HasPrefix(at, "append") {
						return failed
					}
					if op == "reserve" && at == "append records" && !removed {
						return failed // until the reserve is given up
					}
					if at != op || left <= 0 {
						return works
					}
					left--
					return kind
				}
				permitted, refused := map[string]bool{}, 0
				var closings []string
				for i := range 6 {
					object := fmt.Sprintf("%s-%d", strings.ReplaceAll(name, " ", "-"), i)
					if err := l.Permit(entry(SessionStart, object)); err == nil {
						permitted[object] = true
					} else if refused++; !errors.Is(err, ErrUnwritten) {
						t.Errorf("%s: %v", name, err)
					}
					if err := l.Record(entry(SessionEnd, object)); err != nil && !errors.Is(err, ErrWaiting) {
						t.Errorf("%s: %v", name, err)
					}
					closings = append(closings, object)
					invariant(t, name, dir, k, permitted)
				}
				disk.fails = nil
				if err := l.Record(entry(Alarm, "last")); err != nil {
					t.Errorf("%s: the disk is well again: %v", name, err)
				}
				if err := l.Permit(entry(Admit, "after")); err != nil {
					t.Errorf("%s: the disk is well again: %v", name, err)
				}
				if err := l.Close(); err != nil {
					t.Errorf("%s: close: %v", name, err)
				}
				b := readAll(t, dir)[fileRecords]
				for _, object := range closings {
					if n := bytes.Count(b, []byte(`"session.end","object":"`+object+`"`)); n != 1 {
						t.Errorf("%s: closing of %s stands %d times", name, object, n)
					}
				}
				if l = mustOpen(t, c); l.Tree().N == 0 {
					t.Errorf("%s: empty after reopening", name)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	t.Log("faults:", count)
	for _, op := range ops {
		for _, kind := range []string{"failed", "persisted", "torn"} {
			if count[op+" "+kind] == 0 {
				t.Errorf("never: %s %s", op, kind)
			}
		}
	}
}

func invariant(t *testing.T, name, dir string, k key, permitted map[string]bool) {
	t.Helper()
	if _, err := Verify(dir, k.text); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	b := readAll(t, dir)[fileRecords]
	for object := range permitted {
		if n := bytes.Count(b, []byte(`"session.start","object":"`+object+`"`)); n != 1 {
			t.Errorf("%s: permitted %s stands %d times", name, object, n)
		}
	}
}

// quota is a disk that is full at a number of bytes.
type quota struct {
	directory
	left int64
}

func (q *quota) take(n int64) error {
	if n > q.left {
		return fmt.Errorf("scripted: %w", syscall.ENOSPC)
	}
	q.left -= n
	return nil
}

func (q *quota) open(name string) (file, error) {
	f, err := q.directory.open(name)
	return &quotaFile{f, q}, err
}

func (q *quota) reserve(name string, n int64) error {
	if _, err := q.directory.read(name); err == nil {
		return nil
	}
	if err := q.take(n); err != nil {
		return err
	}
	return q.directory.reserve(name, n)
}

func (q *quota) remove(name string) error {
	b, err := q.directory.read(name)
	if err == nil {
		q.left += int64(len(b))
	}
	return errors.Join(err, q.directory.remove(name))
}

type quotaFile struct {
	file
	q *quota
}

func (f *quotaFile) append(p []byte) error {
	if err := f.q.take(int64(len(p))); err != nil {
		return errors.Join(f.file.append(p[:min(f.q.left, int64(len(p)/2))]), err)
	}
	return f.file.append(p)
}

func TestFullDisk(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	disk := &quota{directory: directory(dir), left: reserveSize + 2000}
	l, err := open(k.config(dir), disk)
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for l.Permit(entry(SessionStart, fmt.Sprint("s-", opened))) == nil {
		opened++
	}
	if opened == 0 {
		t.Fatal("nothing could be opened")
	}
	for i := range 100 {
		if err := l.Record(entry(SessionEnd, fmt.Sprint("s-", i))); err != nil {
			t.Fatal("a closing action on a full disk:", err)
		}
	}
	if err := l.Permit(entry(Unmute, "mic")); err != nil {
		t.Error("unmute in a running session on a full disk:", err)
	}
	if err := l.Permit(entry(SessionStart, "late")); !errors.Is(err, ErrUnwritten) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("opened while the reserve is in use: %v", err)
	}
	if bytes.Contains(readAll(t, dir)[fileRecords], []byte(`"late"`)) {
		t.Error("a refused action stands in the log")
	}
	disk.left += 2 * reserveSize
	if err := l.Permit(entry(SessionStart, "again")); err != nil {
		t.Error("there is space again:", err)
	}
	r, err := Verify(dir, k.text)
	if err != nil || r.Entries != int64(opened)+102 {
		t.Errorf("%d entries, %v; %d were opened", r.Entries, err, opened)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	k, dir := newKey(t), t.TempDir()
	disk := &faulty{directory: directory(dir), count: map[string]int{}}
	l, err := open(k.config(dir), disk)
	if err != nil {
		t.Fatal(err)
	}
	disk.fails = func(string) fault { return failed }
	for i := range maxWaiting + 10 {
		if err := l.Record(entry(Mute, "mic")); !errors.Is(err, ErrWaiting) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if len(l.waiting) != maxWaiting {
		t.Errorf("%d entries wait", len(l.waiting))
	}
	disk.fails = nil
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if r, err := Verify(dir, k.text); err != nil || r.Entries != maxWaiting {
		t.Errorf("%+v, %v", r, err)
	}
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
